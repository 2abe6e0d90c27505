"""Searches: which configuration a task gets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

from lasem.errors import ConfigError, check_range
from lasem.space import Configuration, Pattern, Space, grouped, listed
from lasem.training import PhaseResult, Plan, Snapshot, TaskStart, TaskWeights


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


class AbstractSelection(ABC):
    """Any way to choose a task's configuration. Holds settings only."""

    name: ClassVar[str]
    """How the command line and saved files call the search."""

    @abstractmethod
    def space(self, depth: int, task_index: int) -> Space:
        """The configurations to choose from, for a network of ``depth`` layers and the task at that position.

        Raises:
            ConfigError: if the settings do not fit the depth.
        """

    @abstractmethod
    def plan(self, start: TaskStart) -> Plan[Selected]:
        """Yield the phases that the search takes for one task, and return what it comes to."""


@dataclass(frozen=True, kw_only=True)
class GroupedSelection(AbstractSelection):
    """Chooses from the configurations of groups of layers, but not for a first task, which has nothing to transfer."""

    groups: tuple[int, ...] = ()
    """Layers that decide together, input side first, such as 5,4,4,4; empty: each layer for itself."""
    first_task: str = "all"
    """Configuration of a learner's first task, which has nothing to transfer: all, none, letters such as STTS, ...;
    ``search``: it is searched for as any other's."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(self.groups))
        for size in self.groups:
            check_range(f"{type(self).__name__}.groups", size, least=1)
        if self.first_task != "search":
            Pattern(self.first_task)

    def space(self, depth: int, task_index: int) -> Space:
        """The configurations to choose from; for a first task that is not searched, one."""
        if task_index == 0 and self.first_task != "search":
            return listed([Pattern(self.first_task).of(depth)])
        if self.groups and sum(self.groups) != depth:
            raise ConfigError(
                f"{type(self).__name__}.groups must add up to the network's {depth} layers that can be transferred; "
                f"got {', '.join(map(str, self.groups))}, which is {sum(self.groups)}."
            )
        return self.choices(self.groups or (1,) * depth)

    def choices(self, groups: tuple[int, ...]) -> Space:
        """The configurations of a task that is searched, of as many layers as the sizes of the groups add up to."""
        return grouped(groups)


def selected(
    start: TaskStart, fitted: PhaseResult, *, epochs_before: int = 0, num_epochs: int | None = None
) -> Selected:
    """The outcome of a ``MixturePhase`` phase.

    Args:
        start: whose space the phase's configurations are counted in.
        fitted: the phase's result.
        epochs_before: epochs of earlier phases.
        num_epochs: of all phases; those of this one if not given.
    """

    def choice(snapshot: Snapshot) -> Choice:
        configuration = start.space[snapshot.outcome["configuration"]]
        return Choice(configuration, TaskWeights.from_named(snapshot.weights, start.net.depth))

    return Selected(
        best=choice(fitted.best),
        kept=choice(fitted.kept(start.config.restore_best)),
        best_epoch=epochs_before + fitted.best.epoch,
        valid_accuracy=fitted.best.valid_accuracy,
        num_epochs=fitted.num_epochs if num_epochs is None else num_epochs,
        num_epochs_kept=fitted.num_epochs,
        commit_epoch=fitted.last.outcome["commit_epoch"],
    )
