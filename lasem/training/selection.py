"""From a search to the phases that it takes: what the learner follows for one task."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import final

from lasem.errors import ConfigError
from lasem.search import AbstractSearch, AbstractSelection
from lasem.space import Configuration
from lasem.training.phase import PhaseResult, Snapshot
from lasem.training.plan import Plan
from lasem.training.task_start import TaskStart
from lasem.training.weighing import MixturePhase
from lasem.training.weights import TaskWeights


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
def plan_of(search: AbstractSelection, problem: TaskStart) -> Plan[Selected]:
    """The phases that a search takes. A search of another kind registers its own plan."""
    raise ConfigError(f"Expected a search that lasem knows how to train; got {type(search).__name__}.")


@plan_of.register
def _(search: AbstractSearch, problem: TaskStart) -> Plan[Selected]:
    fitted = yield MixturePhase(search, problem)
    return selected(problem, fitted)


def selected(
    problem: TaskStart, fitted: PhaseResult, *, epochs_before: int = 0, num_epochs: int | None = None
) -> Selected:
    """The outcome of a ``MixturePhase`` phase.

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
