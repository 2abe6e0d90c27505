"""A phase: what one stretch of training moves, what it minimises, and what happens around a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from lasem.data import Task
from lasem.training.config import TrainingConfig

Named = Mapping[str, Tensor]
"""Tensors by flat name."""


class Batch(NamedTuple):
    """One mini-batch."""

    x: Tensor
    """Standardised images, float32, shape (B, channels, height, width)."""
    labels: Tensor
    """int64, shape (B,)."""
    task: str
    """The task that the images belong to."""


class Step(NamedTuple):
    """Where training stands while one mini-batch is trained on."""

    epoch: int
    """Of this phase, from 0."""
    batch: int
    """Of this epoch, from 0."""
    num_batches: int
    """Mini-batches in this epoch."""
    learning_rate: float
    """Step size of plain weights in this epoch."""


@final
@dataclass(frozen=True)
class EpochSummary:
    """What an epoch's record says of the search, for methods that have one."""

    configuration: str
    probabilities: tuple[float, ...] = (1.0,)
    num_evaluated: int = 1
    transfer_probabilities: tuple[float, ...] | None = None


@final
@dataclass(frozen=True)
class Snapshot:
    """The weights after one epoch."""

    epoch: int
    """Of the phase, from 1; 0 before the first."""
    valid_accuracy: float
    weights: dict[str, Tensor]
    outcome: dict[str, Any]
    """What the phase says of itself at that moment (``AbstractPhase.outcome``); plain values."""


@final
@dataclass(frozen=True)
class PhaseResult:
    """What a phase has come to."""

    best: Snapshot
    """The epoch that the validation images chose (``TrainingConfig.tolerance``)."""
    last: Snapshot
    num_epochs: int
    last_loss: float = field(default=float("nan"))
    """Mean training loss of the last epoch."""

    def kept(self, restore_best: bool) -> Snapshot:
        """The best epoch or the last one, as the settings say."""
        return self.best if restore_best else self.last


class AbstractPhase(ABC):
    """One stretch of training on one task. ``Loop`` trains it, ``follow`` strings phases together.

    What is trained are the tensors of ``initial``; everything else that a phase computes with it holds itself, and
    never changes. A phase whose own condition changes while it is trained gives it to ``state`` and takes it back in
    ``load_state``, so that an interrupted phase goes on to the same bits.
    """

    task: Task
    config: TrainingConfig
    """How it is trained: epochs, batches, optimiser."""
    title: str = ""
    """What an epoch's record calls the phase; empty where a task has only one."""
    forgets: tuple[int, ...] = ()
    """Earlier phases of the same plan, counted from 0, whose weights nothing will ask for again, not even if the plan
    is begun again from its start: no phase between may have gone on from them."""
    seeds_of: int | None = None
    """Phase of the same plan, counted from 0, whose order of images and dropout this one draws; None: its own."""
    goes_on: bool = False
    """Whether a schedule that counts the epochs of all tasks counts those of this task's earlier phases too."""

    @abstractmethod
    def initial(self) -> dict[str, Tensor]:
        """Start of every tensor that is trained, by name; they are copied."""

    @abstractmethod
    def loss(self, weights: Named, batch: Batch, dropout: torch.Generator) -> Tensor:
        """What a step goes down on, a scalar; ``Loop`` calls it within ``autocast`` of the settings' precision.

        Args:
            weights: what is trained, on the device.
            batch: images and labels on the device.
            dropout: source of dropout masks, on the device.
        """

    @abstractmethod
    def accuracy(self, weights: Named) -> float:
        """Validation accuracy in [0, 1], without dropout; called as ``loss`` is."""

    @property
    def num_valid(self) -> int:
        """Images behind ``accuracy``."""
        return len(self.task.valid)

    def scale(self, name: str) -> float:
        """Step size of one tensor, relative to plain weights'; with 0 it is only read."""
        return 1.0

    def batches(self, device: torch.device, order: torch.Generator) -> Iterator[Batch]:
        """One epoch's mini-batches."""
        config = self.config
        split = self.task.train.batches(config.batch_size, device=device, generator=order, drop_last=config.drop_last)
        return (Batch(x, labels, self.task.name) for x, labels in split)

    @property
    def num_batches(self) -> int:
        """Mini-batches in an epoch."""
        size, total = self.config.batch_size, len(self.task.train)
        return max(1, total // size) if self.config.drop_last else -(-total // size)

    def begin_epoch(self, weights: Named, epoch: int, learning_rate: float) -> None:  # noqa: B027
        """Called before each epoch, counted from 0, with its step size; may change ``weights`` in place."""

    def change_gradients(self, weights: Named, step: Step) -> None:  # noqa: B027
        """Called between the loss's gradient and the optimiser's step; may change ``weights[...].grad``."""

    def after_step(self, weights: Named, step: Step) -> None:  # noqa: B027
        """Called after the optimiser's step without gradients; may change ``weights`` in place (proximal steps)."""

    @abstractmethod
    def summary(self) -> EpochSummary:
        """What the epoch's record says of the search."""

    def outcome(self) -> dict[str, Any]:
        """Plain values that belong to the weights of this moment."""
        return {}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The phase's own condition: tensors by name, and plain values for JSON."""
        return {}, {}

    def load_state(self, tensors: Named, plain: Mapping[str, Any]) -> None:  # noqa: B027
        """Take back what ``state`` gave; KeyError, ValueError or TypeError if it is not that."""
