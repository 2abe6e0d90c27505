"""Searches that train several candidates apart from each other, each for a whole task, and keep the best one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from lasem.errors import ConfigError, check_range
from lasem.search.abstract import AbstractSelection
from lasem.space import Pattern, Space, listed


@dataclass(frozen=True, kw_only=True)
class AbstractTrials(AbstractSelection):
    """Proposes candidates and says which one is best; every one is trained from the same start, as ``Fixed`` would.

    Holds settings and pure logic only; what the trials have come to is given to it.
    """

    groups: tuple[int, ...] = ()
    """Layers that decide together, input side first, such as 5,4,4,4; empty: each layer for itself."""
    first_task: str = "all"
    """Configuration of a learner's first task, which has nothing to transfer, or ``search``."""
    workers: int = 1
    """Candidates that are trained at the same time, each in a process of its own, which share out the threads of the
    CPU; 1: one after another in this process. A script that asks for more needs ``if __name__ == "__main__":``."""

    def __post_init__(self) -> None:
        kind = type(self).__name__
        object.__setattr__(self, "groups", tuple(self.groups))
        for size in self.groups:
            check_range(f"{kind}.groups", size, least=1)
        check_range(f"{kind}.workers", self.workers, least=1)
        if self.first_task != "search":
            Pattern(self.first_task)

    def space(self, depth: int, task_index: int) -> Space:
        """Every configuration that may be tried; for a first task that is not searched, one."""
        if task_index == 0 and self.first_task != "search":
            return listed([Pattern(self.first_task).of(depth)])
        if self.groups and sum(self.groups) != depth:
            raise ConfigError(
                f"{type(self).__name__}.groups must add up to the network's {depth} layers that can be transferred; "
                f"got {', '.join(map(str, self.groups))}, which is {sum(self.groups)}."
            )
        return self.choices(self.groups or (1,) * depth)

    @abstractmethod
    def choices(self, groups: tuple[int, ...]) -> Space:
        """The configurations of a task that is searched, of as many layers as the sizes of the groups add up to."""

    @abstractmethod
    def propose(self, space: Space, tried: Mapping[int, float], generator: torch.Generator) -> tuple[int, ...]:
        """The candidates to train next, which may be trained at the same time; none ends the search.

        Args:
            space: the configurations of the task.
            tried: the validation accuracy of every candidate so far, by its position in the space.
            generator: the task's source of random numbers; goes on from one call to the next.

        Returns:
            Positions in the space, none of them tried before; at least one the first time.
        """

    def best(self, space: Space, tried: Mapping[int, float]) -> int:
        """The candidate that the task gets: the highest accuracy, then the most layers that transfer, then the first.

        A candidate that is not the best one of those tried so far is forgotten and can never be chosen.

        Args:
            space: the configurations of the task.
            tried: the validation accuracy of each candidate at its best epoch, by its position in the space.

        Returns:
            A position in the space.
        """
        return max(tried, key=lambda position: (tried[position], space[position].num_transferred, -position))
