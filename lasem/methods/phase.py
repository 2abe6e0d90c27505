"""The phase of a method that trains one network on one task, and what its weights are taken apart to."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from lasem.data import Task
from lasem.methods.method import Setup
from lasem.methods.plain import run
from lasem.training import AbstractPhase, Batch, EpochSummary, Named, accuracy


class NetworkPhase(AbstractPhase):
    """Trains everything that it starts from by cross-entropy; methods override what they do otherwise."""

    def __init__(self, task: Task, setup: Setup, initial: dict[str, Tensor]) -> None:
        """Start before the first epoch.

        Args:
            task: images and labels.
            setup: network, training, device.
            initial: start of every tensor that is trained, by name.
        """
        self.task, self.config = task, setup.training
        self._setup, self._initial = setup, initial

    def initial(self) -> dict[str, Tensor]:
        """As given."""
        return self._initial

    def answer(self, weights: Named, dropout: torch.Generator | None = None) -> Callable[[Tensor], Tensor]:
        """The network with some weights, from images (B, ...) to logits (B, num_classes): here the plain one.

        Args:
            weights: what is trained.
            dropout: source of the dropout mask in training; None when the network answers.
        """
        return partial(run, self._setup.net, weights, dropout=dropout)

    def loss(self, weights: Named, batch: Batch, dropout: torch.Generator) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(self.answer(weights, dropout)(batch.x), batch.labels)

    @torch.no_grad()
    def accuracy(self, weights: Named) -> float:
        """Of the network as it answers."""
        return accuracy(self.answer(weights), self.task.valid, self._setup.device)

    def summary(self) -> EpochSummary:
        """There is no search: every layer is shared."""
        return EpochSummary("T" * self._setup.net.depth)


def shared_and_own(weights: Named) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The layers' weights, and all others: the head's and what else a task owns."""
    shared = {name: value for name, value in weights.items() if name.startswith("layer.")}
    return shared, {name: value for name, value in weights.items() if name not in shared}
