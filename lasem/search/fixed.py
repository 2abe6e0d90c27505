"""One configuration for every task: ``all`` is hard parameter sharing, ``none`` single-task learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from lasem.search.abstract import AbstractSearch
from lasem.search.state import SearchState
from lasem.space import Pattern, Space, listed


@final
@dataclass(frozen=True)
class Fixed(AbstractSearch):
    """No search: ``Fixed("all")``, ``Fixed(top(2))``, ``Fixed("STTS")``."""

    name: ClassVar[str] = "fixed"

    configuration: str = "all"
    """all, none, alternating, top-K, bottom-K, or one letter a layer such as STTS."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "configuration", str(Pattern(str(self.configuration))))

    def space(self, depth: int, task_index: int) -> Space:
        """The one configuration."""
        return listed([Pattern(self.configuration).of(depth)])

    def init(self, num_configurations: int) -> SearchState:
        """Committed from the start."""
        return SearchState(torch.ones(num_configurations, dtype=torch.float64), committed=0)

    def prior(self, state: SearchState) -> Tensor:
        """Certainty."""
        return state.mass

    def step(self, state: SearchState, log_likelihood: Tensor) -> tuple[Tensor, SearchState]:
        """All weight on the one configuration."""
        return state.mass, state

    def advance(self, state: SearchState, epoch: int, num_epochs: int) -> SearchState:
        """Nothing changes."""
        return state

    def best(self, state: SearchState) -> int:
        """The one configuration."""
        return 0
