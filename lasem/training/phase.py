"""Phases: what one stretch of training moves, what it minimises, and what happens around a step."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, final

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import TypeVar

from lasem.data import Split, Task
from lasem.training.augment import change_of
from lasem.training.config import TrainingConfig, evaluation_batch
from lasem.tree import Path

Named = Mapping[str, Tensor]
"""Tensors by flat name."""

Weights = TypeVar("Weights", default=dict[str, Tensor])
"""What a phase trains: a tree of tensors (``lasem.tree``)."""


class Batch(NamedTuple):
    """One mini-batch."""

    x: Tensor
    """Standardised images, float32, shape (B, channels, height, width)."""
    labels: Tensor
    """int64, shape (B,)."""
    task: str
    """The task that the images belong to."""
    weights: Tensor | None = None
    """Of each image's loss, shape (B,); None: all count the same."""

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """Return the mean cross-entropy of logits (B, num_classes), a scalar."""
        if self.weights is None:
            return F.cross_entropy(logits, self.labels)
        return self.mean(F.cross_entropy(logits, self.labels, reduction="none"))

    def mean(self, losses: Tensor) -> Tensor:
        """Return the mean over the images of losses (..., B)."""
        return (losses if self.weights is None else losses * self.weights).mean(dim=-1)


def batches_of(
    split: Split, config: TrainingConfig, task: str, device: torch.device, order: torch.Generator
) -> Iterator[Batch]:
    """Return the mini-batches of one epoch over a task's training images, changed as the settings say.

    Their order, and a seed of the changes, are drawn at once.
    """
    weights, size, drop_last = class_weights(split, config), config.batch_size, config.drop_last
    change = change_of(config.augment, config.mix, split, order)
    parts = split.batches(size, device=device, generator=order, drop_last=drop_last, training=True, change=change)
    return (Batch(x, labels, task, None if weights is None else weights.to(device)[labels]) for x, labels in parts)


def class_weights(split: Split, config: TrainingConfig) -> Tensor | None:
    """Return N / (K N_k) for each class, with N_k of a split's N images and K classes; None if all images count 1."""
    if config.class_weights == "none":
        return None
    counts = split.labels.bincount()
    return len(split) / (counts.count_nonzero() * counts.clamp(min=1))


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
    """What a phase says of itself after an epoch, for the record."""

    configuration: str
    probabilities: tuple[float, ...] = (1.0,)
    num_evaluated: int = 1
    transfer_probabilities: tuple[float, ...] | None = None
    commit_epoch: int | None = None


@final
@dataclass(frozen=True)
class Snapshot(Generic[Weights]):
    """The weights after one epoch."""

    epoch: int
    """Of the phase, from 1; 0 before the first."""
    valid_accuracy: float
    weights: Weights
    summary: EpochSummary
    """Of the same epoch."""


@final
@dataclass(frozen=True)
class PhaseResult(Generic[Weights]):
    """What a phase has come to."""

    best: Snapshot[Weights]
    """The epoch that the validation images chose (``TrainingConfig.tolerance``)."""
    last: Snapshot[Weights]
    num_epochs: int
    last_loss: float = float("nan")
    """Mean training loss of the last epoch."""
    outcome: Tensor | None = None
    """See ``AbstractPhase``; on the CPU."""
    epochs_before: int = 0
    """Epochs of the earlier phases of the plan."""

    def kept(self, restore_best: bool) -> Snapshot[Weights]:
        """Return the best epoch or the last one, as the settings say."""
        return self.best if restore_best else self.last


class AbstractPhase(ABC, Generic[Weights]):
    """One stretch of training on one task. ``Loop`` trains it, ``follow`` trains the phases of a plan in turn.

    ``initial``, ``loss``, ``accuracy`` and ``summary`` make a phase; the other methods are hooks. A phase keeps what it
    computes with, and returns the loss instead of a next state: most phases have no state, and the hooks around one
    step share values that no later step needs. A phase with a state keeps it in ``state``.
    """

    task: Task
    config: TrainingConfig
    """How it is trained: epochs, batches, optimiser."""
    title: str = ""
    """What an epoch's record calls the phase; empty where a task has only one."""
    forgets: tuple[int, ...] | None = ()
    """Earlier phases of the same plan, counted from 0, whose weights nothing will ask for again, not even if the plan
    is begun again from its start: no phase between may have gone on from them. None: all."""
    seeds_of: int | None = None
    """Phase of the same plan, counted from 0, whose order of images and dropout this one draws; None: its own."""
    goes_on: bool = False
    """Whether a schedule that counts the epochs of all tasks counts those of this task's earlier phases too."""
    warmup: int = 0
    """Epochs in which the step size rises from 0 in a straight line, step by step."""
    solved: float | None = None
    """Mean training loss of weights that are at their best from the start: no step is taken, and there is one epoch."""
    state: Any = None
    """What later epochs depend on besides the weights, a tree of tensors and plain values (``lasem.tree``). The loop
    saves it after an epoch, and sets it where an interrupted phase goes on."""

    @abstractmethod
    def initial(self) -> Weights:
        """Return the start of every tensor that is trained; they are copied."""

    @abstractmethod
    def loss(self, weights: Weights, batch: Batch, dropout: torch.Generator) -> Tensor:
        """Return what a step goes down on, a scalar; called within ``autocast`` of the settings' precision.

        Args:
            weights: what is trained, on the device.
            batch: images and labels on the device.
            dropout: source of dropout masks, on the device.
        """

    @abstractmethod
    def accuracy(self, weights: Weights) -> float:
        """Return the validation accuracy in [0, 1], without dropout; called as ``loss`` is."""

    @abstractmethod
    def summary(self) -> EpochSummary:
        """Return what the epoch's record says of the search."""

    def trace(self) -> tuple[int, tuple[float, ...] | None] | None:
        """Return an epoch's ``num_batches`` and ``trace`` (``EpochRecord``); None if no search went on in it."""
        return None

    def outcome(self, weights: Weights) -> Tensor | None:
        """Return what the plan asks for besides the weights, which it may then forget; called after the last epoch."""
        return None

    @property
    def num_valid(self) -> int:
        """Number of images that ``accuracy`` looks at."""
        return len(self.task.valid)

    def scale(self, path: Path) -> float:
        """Return the step size of the tensor at a path, relative to plain weights'; with 0 it is only read."""
        return 1.0

    def batches(self, device: torch.device, order: torch.Generator) -> Iterator[Batch]:
        """Yield one epoch's mini-batches."""
        return batches_of(self.task.train, self.config, self.task.name, device, order)

    @property
    def num_batches(self) -> int:
        """Mini-batches in an epoch."""
        return self.task.train.num_batches(self.config.batch_size, drop_last=self.config.drop_last, training=True)

    def begin_epoch(self, weights: Weights, epoch: int, learning_rate: float) -> None:
        """Prepare an epoch, counted from 0, with its step size; may change ``weights`` in place."""

    def change_gradients(self, weights: Weights, step: Step) -> None:
        """Change gradients, between the loss's gradient and the optimiser's step."""

    def after_step(self, weights: Weights, step: Step) -> None:
        """Change ``weights`` in place after the optimiser's step, without gradients (proximal steps)."""


@torch.no_grad()
def accuracy(answer: Callable[[Tensor], Tensor], split: Split, device: torch.device) -> float:
    """Return the share of a split's images that a function from images to logits labels rightly, in [0, 1]."""
    correct = torch.zeros((), dtype=torch.int64, device=device)
    for x, labels in split.batches(evaluation_batch(split.images.shape), device=device):
        correct += (answer(x).argmax(dim=1) == labels).sum()
    return int(correct) / len(split)
