"""Searches: which configuration a task gets."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, final

from lasem.errors import ConfigError
from lasem.nets import AbstractNet
from lasem.settings import Range, Settings
from lasem.space import Configuration, Pattern, Space, factorised, grouped, listed
from lasem.training import PhaseResult, Plan, Snapshot, TaskStart, TaskWeights


@final
@dataclass(frozen=True)
class Choice:
    """A configuration and the weights that go with it."""

    configuration: Configuration
    weights: TaskWeights


@final
@dataclass(frozen=True)
class Offer:
    """A configuration that could have been chosen."""

    configuration: str
    accuracy: float
    """Of images outside of the training, while all configurations were trained at once, in [0, 1]."""
    owned: int
    """Numbers that the task would own, without the head."""
    computed: int
    """Multiply-adds for an image from the first layer with anything of the task's own to the last."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How the learning of a task has gone."""

    best_epoch: int
    """Counted over all phases, from 1."""
    valid_accuracy: float
    """At the best epoch."""
    num_epochs: int
    """Over all phases."""
    num_epochs_kept: int
    """Of the phase that trained what is kept: schedules count these over all tasks."""
    commit_epoch: int | None = None
    """First epoch after a search had committed; None if it never did."""
    temperature: float | None = None
    """What divides the logits, where no image is left to choose it by when the training ends."""
    source: str | None = None
    """The earlier task whose layers are transferred as they are (``TaskStart.source``)."""
    frontier: tuple[Offer, ...] = ()
    """The configurations that are more accurate than all that own no more, the one that owns least first."""
    explained: tuple[tuple[str, float], ...] = ()
    """Earlier tasks whose layers were looked at, the best first, and the share of the labels that each explains."""


@final
@dataclass(frozen=True, kw_only=True)
class Selected(Outcome):
    """What a search has come to."""

    best: Choice
    """At the best epoch: the paper's peak accuracy is measured with this one."""
    kept: Choice
    """What the learner keeps: the best epoch's or the last one's, as the settings say."""
    evidence: tuple[float, ...] = ()
    """For each layer how much the images speak for transfer (``lasem.search.evidence``); empty: not measured."""


class AbstractSelection(Settings, ABC):
    """Any way to choose a task's configuration. Holds settings only."""

    name: ClassVar[str]
    """How the command line and saved files call the search."""
    reuses: ClassVar[bool] = False
    """Whether it always takes layers of an earlier task as they are (``TaskStart.sources``)."""

    @property
    def imposes(self) -> bool:
        """Whether the first task, too, gets what is chosen for the second one."""
        return False

    def space(self, depth: int, task_index: int) -> Space:
        """Return the configurations to choose from, for a network of ``depth`` layers and the task at that position.

        By default all, but for a first task, which has nothing to transfer: its layers are the ones to be shared.

        Raises:
            ConfigError: if the settings do not fit the depth.
        """
        return grouped((1,) * depth) if task_index else listed([Pattern("all").of(depth)])

    def remark(self, depth: int) -> str:
        """Return what a person should know of the search with a network of ``depth`` layers; empty for nothing."""
        return ""

    def reason(self, net: AbstractNet, task_index: int) -> str:
        """Return why the task at that position transfers what it does."""
        size = self.space(net.depth, task_index).size
        if size == 1:
            return f"search '{self.name}' does not choose for a first task"
        number = f"{size:,}" if size < 10**6 else f"2^{size.bit_length() - 1}"
        return f"search '{self.name}' chose it among {number} configurations"

    @abstractmethod
    def plan(self, start: TaskStart) -> Plan[Selected]:
        """Yield the phases that the search takes for one task, and return what it comes to."""


@dataclass(frozen=True, kw_only=True)
class GroupedSelection(AbstractSelection):
    """Chooses from the configurations of groups of layers, but not for a first task, which has nothing to transfer."""

    groups: tuple[Annotated[int, Range(least=1)], ...] = ()
    """Layers that decide together, input side first, such as 5,4,4,4; empty: each layer for itself, or four groups of a
    network with too many layers for that."""
    first_task: str = "all"
    """Configuration of a learner's first task, which has nothing to transfer: all, none, letters such as STTS, ...;
    ``search``: it is searched for as any other's, as always where a pretrained network's shared layers never change."""

    most_groups: ClassVar[int | None] = 16
    """Groups with which the search can work, so that 2^16 configurations can be listed; None: any number."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(self.groups))
        super().__post_init__()
        if self.first_task != "search":
            Pattern(self.first_task)

    def space(self, depth: int, task_index: int) -> Space:
        if task_index == 0 and self.first_task != "search":
            return listed([Pattern(self.first_task).of(depth)])
        if self.groups and sum(self.groups) != depth:
            raise ConfigError(
                f"{type(self).__name__}.groups must add up to the network's {depth} layers that can be transferred; "
                f"got {', '.join(map(str, self.groups))}, which is {sum(self.groups)}."
            )
        return self.choices(self.sizes(depth))

    def reason(self, net: AbstractNet, task_index: int) -> str:
        reason = super().reason(net, task_index)
        first = task_index == 0 and self.first_task != "search"
        return f"{reason} (in a new model it would with --search.first_task search)" if first else reason

    def sizes(self, depth: int) -> tuple[int, ...]:
        """Return how many layers decide together in each group, for a network of ``depth`` layers."""
        if self.groups or self.most_groups is None or depth <= self.most_groups:
            return self.groups or (1,) * depth
        return tuple(depth // 4 + (group < depth % 4) for group in range(4))

    def remark(self, depth: int) -> str:
        sizes = self.sizes(depth)
        if self.groups or len(sizes) == depth:
            return ""
        return (
            f"The network's {depth} layers are too many to decide one by one with search '{self.name}': they decide in "
            f"groups of {', '.join(map(str, sizes))} (search.groups sets others; search 'deep-em' needs none)."
        )

    def choices(self, groups: tuple[int, ...]) -> Space:
        """Return the configurations of a task that is searched, for groups of layers of these sizes: here all of them.

        They are listed, unless there may be any number of groups.
        """
        return factorised(groups) if self.most_groups is None else grouped(groups)


def selected(
    start: TaskStart,
    result: PhaseResult[TaskWeights],
    *,
    last: PhaseResult[TaskWeights] | None = None,
    temperature: float | None = None,
) -> Selected:
    """Return the outcome of a plan that takes the result of a phase, after which others may come until the ``last``."""
    last = last or result

    def choice(snapshot: Snapshot[TaskWeights]) -> Choice:
        configuration, weights = Configuration.parse(snapshot.summary.configuration), snapshot.weights
        before = start.weights.layers[: len(configuration) - len(weights.layers)]  # whose outputs were kept
        return Choice(configuration, TaskWeights((*before, *weights.layers), weights.head))

    return Selected(
        best=choice(result.best),
        kept=choice(result.kept(start.config.restore_best)),
        best_epoch=result.epochs_before + result.best.epoch,
        valid_accuracy=result.best.valid_accuracy,
        num_epochs=last.epochs_before + last.num_epochs,
        num_epochs_kept=result.num_epochs,
        commit_epoch=result.last.summary.commit_epoch,
        temperature=temperature,
        source=start.source,
    )
