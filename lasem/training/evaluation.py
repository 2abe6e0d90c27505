"""How right answers are counted, for every method."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lasem.data import Split

EVALUATION_BATCH = 500
"""Images at a time where no gradients are needed."""


@torch.no_grad()
def accuracy(answer: Callable[[Tensor], Tensor], split: Split, device: torch.device) -> float:
    """Share of a split's images that a function from images to logits labels rightly, in [0, 1]."""
    correct = torch.zeros((), dtype=torch.int64, device=device)
    for x, labels in split.batches(EVALUATION_BATCH, device=device):
        correct += (answer(x).argmax(dim=1) == labels).sum()
    return int(correct) / len(split)
