"""From a search to the phases that it takes: what the learner follows for one task."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import singledispatch
from typing import final

import torch

from lasem.data import Task
from lasem.errors import ConfigError
from lasem.nets import AbstractNet
from lasem.search import AbstractSearch, AbstractSelection
from lasem.sharing import AbstractSharing
from lasem.space import Configuration, Space
from lasem.training.config import TrainingConfig
from lasem.training.guard import Guard
from lasem.training.phase import Fitted, Snapshot
from lasem.training.plan import Plan
from lasem.training.weighing import Replaced, Weighing
from lasem.training.weights import TaskWeights


@final
@dataclass(frozen=True)
class Problem:
    """One task, and everything that a search starts from."""

    net: AbstractNet
    sharing: AbstractSharing
    config: TrainingConfig
    task: Task
    space: Space
    """The configurations to choose from."""
    weights: TaskWeights
    """Start of whatever some configuration of the space uses."""
    replaced: Replaced
    """Fresh plain weights where the task's own part was taken over from another task."""
    device: torch.device
    seed: tuple[int, ...] = ()
    """Of the random numbers of a search: the learner's seed and the task's position."""
    guard: Guard = field(default_factory=Guard)
    """What holds shared knowledge that earlier tasks use."""

    def only(self, configuration: Configuration) -> Problem:
        """The same with one configuration to train, from the same start."""
        layers = tuple(
            replace(layer, specific={}) if transferred else replace(layer, shared={}, factors={})
            for layer, transferred in zip(self.weights.layers, configuration, strict=True)
        )
        weights = TaskWeights(layers, self.weights.head)
        return replace(self, space=Space((configuration,)), weights=weights)


@final
@dataclass(frozen=True)
class Choice:
    """A configuration and the weights that go with it."""

    configuration: Configuration
    weights: TaskWeights


@final
@dataclass(frozen=True)
class Selected:
    """What a search has come to."""

    best: Choice
    """At the best epoch: the paper's peak accuracy is measured with this one."""
    kept: Choice
    """What the learner keeps: the best epoch's or the last one's, as the settings say."""
    best_epoch: int
    """Counted over all phases, from 1."""
    valid_accuracy: float
    """At the best epoch."""
    num_epochs: int
    """Over all phases."""
    num_epochs_kept: int
    """Of the weights that are kept alone, for schedules that count the epochs of earlier tasks."""
    commit_epoch: int | None


@singledispatch
def plan_of(search: AbstractSelection, problem: Problem) -> Plan[Selected]:
    """The phases that a search takes. A search of another kind registers its own plan."""
    raise ConfigError(f"Expected a search that lasem knows how to train; got {type(search).__name__}.")


@plan_of.register
def _(search: AbstractSearch, problem: Problem) -> Plan[Selected]:
    fitted = yield weighing(search, problem)
    return selected(problem, fitted)


def weighing(search: AbstractSearch, problem: Problem) -> Weighing:
    """The phase in which a search weighs the problem's configurations."""
    return Weighing(
        problem.net,
        problem.sharing,
        search,
        problem.config,
        problem.space,
        problem.task,
        problem.weights,
        replaced=problem.replaced,
        guard=problem.guard,
        seed=problem.seed,
        device=problem.device,
    )


def selected(problem: Problem, fitted: Fitted, *, epochs_before: int = 0, num_epochs: int | None = None) -> Selected:
    """The outcome of a ``Weighing`` phase.

    Args:
        problem: whose space the phase's configurations are counted in.
        fitted: the phase's result.
        epochs_before: epochs of earlier phases.
        num_epochs: of all phases; those of this one if not given.
    """

    def choice(snapshot: Snapshot) -> Choice:
        configuration = problem.space[snapshot.outcome["configuration"]]
        return Choice(configuration, TaskWeights.from_named(snapshot.weights, problem.net.depth))

    return Selected(
        best=choice(fitted.best),
        kept=choice(fitted.kept(problem.config.restore_best)),
        best_epoch=epochs_before + fitted.best.epoch,
        valid_accuracy=fitted.best.valid_accuracy,
        num_epochs=fitted.num_epochs if num_epochs is None else num_epochs,
        num_epochs_kept=fitted.num_epochs,
        commit_epoch=fitted.last.outcome["commit_epoch"],
    )
