"""What a learner keeps of a task beside its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor


@final
@dataclass(frozen=True)
class TaskInfo:
    """What is known of a learned task beside its tensors."""

    name: str
    classes: tuple[str, ...]
    mean: Tensor
    """Per channel, subtracted from images; shape (channels,)."""
    std: Tensor
    """Per channel, divides images; shape (channels,)."""
    num_epochs: int
    valid_accuracy: float
    peak_accuracy: float
