"""Searches whose answer is given: one configuration for every task, or fixed probabilities of all.

``Fixed("all")`` is hard parameter sharing, ``Fixed("none")`` single-task learning.

.. [Lee2021] S. Lee, S. Behpour, E. Eaton. Sharing Less is More: Lifelong Learning in Deep Networks with Selective Layer
   Transfer. ICML 2021.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import Tensor

from lasem.errors import check_range
from lasem.search.abstract import GroupedSelection
from lasem.search.state import SearchState
from lasem.search.weighing import AbstractSearch
from lasem.space import Pattern, Space, grouped, listed


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


@final
@dataclass(frozen=True, kw_only=True)
class FixedProbability(GroupedSelection, AbstractSearch):
    """One configuration has a high probability all along, the others share the rest evenly, as in [Lee2021]_'s code.

    The weights are trained as the mixture, and the task gets the configuration that was given.
    """

    name: ClassVar[str] = "fixed-probability"

    configuration: str = "all"
    """The configuration that is probable: all, none, alternating, top-K, bottom-K, or letters such as STTS."""
    probability: float = 0.9
    """Its probability; in (0, 1]."""
    commit_share: float = 1.0
    """The others are left out when this share of the task's epochs is spent; 1: never."""

    def __post_init__(self) -> None:
        super().__post_init__()
        Pattern(self.configuration)
        check_range("FixedProbability.probability", self.probability, above=0, most=1)
        check_range("FixedProbability.commit_share", self.commit_share, above=0, most=1)

    def choices(self, groups: tuple[int, ...]) -> Space:
        """All configurations of the groups, the probable one first."""
        chosen = Pattern(self.configuration).of(sum(groups))
        return listed([chosen, *(other for other in grouped(groups) if other != chosen)])

    def init(self, num_configurations: int) -> SearchState:
        """The probabilities, which stay as they are; a single configuration is committed to."""
        rest = (1 - self.probability) / max(1, num_configurations - 1)
        mass = torch.full((num_configurations,), rest, dtype=torch.float64)
        mass[0] = self.probability if num_configurations > 1 else 1.0
        return SearchState(mass, committed=0 if num_configurations == 1 else None)

    def prior(self, state: SearchState) -> Tensor:
        """What was given; after commitment the one configuration."""
        if state.committed is not None:
            return torch.nn.functional.one_hot(torch.tensor(state.committed), len(state.mass)).to(state.mass)
        return state.mass

    def step(self, state: SearchState, log_likelihood: Tensor) -> tuple[Tensor, SearchState]:
        """The same weights, whatever the mini-batch says."""
        return self.prior(state), state

    def advance(self, state: SearchState, epoch: int, num_epochs: int) -> SearchState:
        """Commit once the share of epochs is spent."""
        if state.committed is None and epoch / num_epochs >= self.commit_share:
            return replace(state, committed=0)
        return state

    def best(self, state: SearchState) -> int:
        """The configuration that was given."""
        return 0
