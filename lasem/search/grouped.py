"""What searches over all configurations have in common: layers that decide together, and a first task of its own."""

from __future__ import annotations

from dataclasses import dataclass

from lasem.errors import ConfigError, check_range
from lasem.search.abstract import AbstractSelection
from lasem.space import Pattern, Space, grouped, listed


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
