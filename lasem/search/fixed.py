"""Searches whose answer is given: one configuration for every task, or fixed probabilities of all.

``Fixed("all")`` is hard parameter sharing, ``Fixed("none")`` single-task learning.

.. [Lee2021] S. Lee, S. Behpour, E. Eaton. Sharing Less is More: Lifelong Learning in Deep Networks with Selective Layer
   Transfer. ICML 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, final

import torch
from torch import Tensor

from lasem.search.abstract import GroupedSelection
from lasem.search.weighing import AbstractSearch
from lasem.settings import Range
from lasem.space import Pattern, Space, grouped, listed


@final
@dataclass(frozen=True)
class Fixed(AbstractSearch[None]):
    """No search: ``Fixed("all")``, ``Fixed(top(2))``, ``Fixed("STTS")``."""

    name: ClassVar[str] = "fixed"

    configuration: str = "all"
    """all, none, alternating, top-K, bottom-K, or one letter a layer such as STTS."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "configuration", str(Pattern(str(self.configuration))))

    def space(self, depth: int, task_index: int) -> Space:
        return listed([Pattern(self.configuration).of(depth)])

    def init(self, num_configurations: int) -> None:
        return None

    def step(self, state: None, log_likelihood: Tensor) -> tuple[Tensor, None]:
        return torch.ones(1, device=log_likelihood.device), None

    def best(self, state: None) -> int:
        return 0


@final
@dataclass(frozen=True, kw_only=True)
class FixedProbability(GroupedSelection, AbstractSearch[Tensor]):
    """One configuration has a high probability all along, the others share the rest evenly, as in [Lee2021]_'s code.

    The weights are trained as the mixture, and the task gets the configuration that was given.
    """

    name: ClassVar[str] = "fixed-probability"

    configuration: str = "all"
    """The configuration that is probable: all, none, alternating, top-K, bottom-K, or letters such as STTS."""
    probability: Annotated[float, Range(above=0, most=1)] = 0.9
    """Its probability; in (0, 1]."""
    commit_share: Annotated[float, Range(above=0, most=1)] = 1.0
    """The others are left out when this share of the task's epochs is spent; 1: never."""

    def __post_init__(self) -> None:
        super().__post_init__()
        Pattern(self.configuration)

    def choices(self, groups: tuple[int, ...]) -> Space:
        """Return all configurations of the groups, the probable one first."""
        chosen = Pattern(self.configuration).of(sum(groups))
        return listed([chosen, *(other for other in grouped(groups) if other != chosen)])

    def init(self, num_configurations: int) -> Tensor:
        """Return the probabilities, which stay as they are."""
        rest = (1 - self.probability) / max(1, num_configurations - 1)
        prior = torch.full((num_configurations,), rest, dtype=torch.float64)
        prior[0] = self.probability if num_configurations > 1 else 1.0
        return prior

    def prior(self, state: Tensor) -> Tensor:
        return state

    def step(self, state: Tensor, log_likelihood: Tensor) -> tuple[Tensor, Tensor]:
        return state, state

    def commits(self, state: Tensor, epoch: int, num_epochs: int) -> bool:
        return epoch / num_epochs >= self.commit_share

    def best(self, state: Tensor) -> int:
        return 0
