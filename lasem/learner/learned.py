"""What a learner keeps of one task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from lasem.learner.shared import Versions
from lasem.space import Configuration


@final
@dataclass(frozen=True)
class LearnedTask:
    """One task's own part of the model; nothing in it changes after the task was learned."""

    name: str
    classes: tuple[str, ...]
    configuration: Configuration
    layers: tuple[dict[str, Tensor], ...]
    """For each layer, the mechanism's task parameters if the layer is transferred, else plain weights; and the running
    statistics, if the layer has any."""
    versions: Versions
    """For each layer the version of the shared knowledge that the task uses."""
    head: dict[str, Tensor]
    mean: Tensor
    """Per channel, subtracted from images; shape (channels,)."""
    std: Tensor
    """Per channel, divides images; shape (channels,)."""
    num_epochs: int
    """Epochs that the task was trained for."""
    valid_accuracy: float
    peak_accuracy: float
    num_images: tuple[int, int, int] = (0, 0, 0)
    """To train, to validate and to test; no image to test: what validates is tested on. 0, 0, 0: not known."""

    @property
    def num_parameters(self) -> int:
        """Numbers that this task alone owns."""
        return sum(t.numel() for part in (*self.layers, self.head) for t in part.values())

    def named(self) -> dict[str, Tensor]:
        """Every tensor under one flat name such as ``layer.0.weight`` or ``head.bias.1``."""
        flat = {f"head.{name}": value for name, value in self.head.items()}
        for i, layer in enumerate(self.layers):
            flat |= {f"layer.{i}.{name}": value for name, value in layer.items()}
        return flat
