"""A method to compare with: what it keeps between tasks, and the phases in which it learns one."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor

from lasem.data import Task
from lasem.nets import Net
from lasem.training import Named, PhaseResult, Plan, Snapshot, TrainingConfig


@final
@dataclass(frozen=True)
class Model:
    """Everything that a method keeps between tasks. Nothing in it is changed in place."""

    shared: Named = field(default_factory=dict)
    """What several tasks answer with, by flat name."""
    own: Mapping[str, Named] = field(default_factory=dict)
    """For each task in the order of learning, what it alone answers with."""
    memory: Named = field(default_factory=dict)
    """What only the learning of later tasks needs: importances, earlier masks, old images. No parameters."""

    def having(self, **changes: Any) -> Model:
        """A copy with other parts."""
        return replace(self, **changes)


@final
@dataclass(frozen=True)
class Setup:
    """What learning one task starts from, apart from the model and the task."""

    net: Net
    training: TrainingConfig
    device: torch.device
    seed: int
    index: int
    """Tasks learned before."""

    def generator(self, *where: str | int) -> torch.Generator:
        """Its own source of random numbers on the CPU for each purpose within each task."""
        numbers = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in where]
        seed = np.random.SeedSequence([self.seed, self.index, *numbers]).generate_state(1)
        return torch.Generator().manual_seed(int(seed[0]))


@final
@dataclass(frozen=True)
class Learned:
    """What the learning of one task has come to."""

    model: Model
    """What is kept, the best epoch's or the last one's, as the settings say; with the new task in ``own``."""
    best: Model
    """As it was at the best epoch: the task's peak accuracy is measured with this one."""
    best_epoch: int
    """Counted over all phases, from 1."""
    valid_accuracy: float
    """At the best epoch."""
    num_epochs: int
    """Over all phases."""

    @classmethod
    def of(
        cls, setup: Setup, fitted: PhaseResult, made: Callable[[Snapshot], Model], *, epochs_before: int = 0
    ) -> Learned:
        """The outcome of a plan's last phase.

        Args:
            setup: says which epoch is kept.
            fitted: the phase's result.
            made: the model that a snapshot of the phase makes; called for each one that is asked for.
            epochs_before: epochs of earlier phases.
        """
        best, kept = made(fitted.best), fitted.kept(setup.training.restore_best)
        return cls(
            model=best if kept is fitted.best else made(kept),
            best=best,
            best_epoch=epochs_before + fitted.best.epoch,
            valid_accuracy=fitted.best.valid_accuracy,
            num_epochs=epochs_before + fitted.num_epochs,
        )


class AbstractMethod(ABC):
    """A way to learn tasks one after another that does not fit sharing and search. Holds settings only.

    Methods are frozen dataclasses of their settings, one file each. ``BaselineLearner`` makes a learner of one.
    """

    name: ClassVar[str]
    """How the command line and saved files call the method."""
    training: ClassVar[Mapping[str, Any]] = {}
    """Settings of ``TrainingConfig`` that the method needs where the defaults do not suit it."""
    unused: ClassVar[frozenset[str]] = frozenset({"specific_start", "specific_shrink"})
    """Settings of ``TrainingConfig`` that mean nothing to the method."""
    rewrites: ClassVar[bool] = False
    """Whether what a task owns may change when a later one is learned."""

    def check(self, net: Net, training: TrainingConfig) -> None:  # noqa: B027
        """Raise ConfigError if the method cannot learn with such a network or such training."""

    @abstractmethod
    def plan(self, model: Model, task: Task, setup: Setup) -> Plan[Learned]:
        """The phases of learning one more task.

        Args:
            model: of the tasks before; its tensors are on ``setup.device`` and are only read.
            task: images, labels and names.
            setup: network, training, device, sources of random numbers.
        """

    @abstractmethod
    def logits(self, net: Net, model: Model, name: str, x: Tensor) -> Tensor:
        """Answer of a learned task to standardised images, without dropout and without gradients.

        Args:
            net: the network.
            model: tensors are on the device of ``x``.
            name: the task.
            x: shape (B, channels, height, width).

        Returns:
            Shape (B, number of the task's classes).
        """

    def transferred(self, net: Net) -> str:
        """Which layers serve several tasks, one letter a layer (T: several, S: one), for records and reports."""
        return "T" * net.depth


def count(tensors: Named) -> int:
    """Numbers that tensors hold, a number being 32 bits: a mask of n yes-or-noes counts as n / 32, up."""
    return sum(-(-t.numel() // 32) if t.dtype == torch.bool else t.numel() for t in tensors.values())
