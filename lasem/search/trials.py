"""Searches that train several candidates apart from each other, each for a whole task, and keep the best one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from lasem.search.grouped import GroupedSelection
from lasem.space import Space


@dataclass(frozen=True, kw_only=True)
class AbstractTrials(GroupedSelection):
    """Proposes candidates and says which one is best; every one is trained from the same start, as ``Fixed`` would.

    Holds settings and pure logic only; what the trials have come to is given to it.
    """

    retired: ClassVar[tuple[str, ...]] = ("workers",)
    """Settings that a file of an earlier version may hold, and that change no result."""

    @abstractmethod
    def propose(self, space: Space, tried: Mapping[int, float], generator: torch.Generator) -> tuple[int, ...]:
        """The candidates to train next; none ends the search.

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
