"""A search: which configuration a task gets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from lasem.space import Space


@final
@dataclass(frozen=True)
class SearchState:
    """What a search has found out about one task so far."""

    mass: Tensor
    """Evidence for each of the C configurations, shape (C,), float64; what it counts is the search's own affair."""
    committed: int | None = None
    """The one configuration that is still trained, once the search has ended."""


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


class AbstractSearch(AbstractSelection):
    """Weighs the C configurations of a task while it is learned; what it finds out is state."""

    @abstractmethod
    def init(self, num_configurations: int) -> SearchState:
        """The state before a task's first mini-batch."""

    @abstractmethod
    def prior(self, state: SearchState) -> Tensor:
        """Probability of every configuration before the next mini-batch, shape (C,), summing to 1."""

    @abstractmethod
    def step(self, state: SearchState, log_likelihood: Tensor) -> tuple[Tensor, SearchState]:
        """Weigh the configurations on one mini-batch.

        Args:
            state: what is known so far.
            log_likelihood: log p(y_n | x_n, c), shape (C, batch).

        Returns:
            The weights of the M-step, shape (C,), summing to 1, and the next state.
        """

    @abstractmethod
    def advance(self, state: SearchState, progress: float) -> SearchState:
        """Called before each epoch with the share of the task's epochs that is spent, in [0, 1): may commit."""

    @abstractmethod
    def best(self, state: SearchState) -> int:
        """The leading configuration's position in the space."""

    def candidates(self, state: SearchState, num_configurations: int) -> tuple[int, ...]:
        """Positions of the configurations that the next epoch trains."""
        return tuple(range(num_configurations)) if state.committed is None else (state.committed,)
