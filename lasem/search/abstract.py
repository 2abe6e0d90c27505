"""A search: which configuration a task gets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from lasem.search.state import SearchState
from lasem.space import Space


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

    def with_prior(self, prior_start: tuple[float, float] | None) -> AbstractSearch:
        """This search for a sharing mechanism that has something to say of the prior (``AbstractSharing.prior_start``).

        Here: unchanged.
        """
        return self

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
            log_likelihood: log p(y_n | x_n, c) of the candidates, shape (len(candidates), batch); of all
                configurations, shape (C, batch), where ``full_pass`` says so.

        Returns:
            The weights of the M-step, one for each row, summing to 1 and 0 for what is no candidate; the next state.
        """

    @abstractmethod
    def advance(self, state: SearchState, epoch: int, num_epochs: int) -> SearchState:
        """Called before each epoch: may commit.

        Args:
            state: what is known so far.
            epoch: epochs that the task has been trained for, from 0.
            num_epochs: epochs that it may be trained for.
        """

    @abstractmethod
    def best(self, state: SearchState) -> int:
        """The leading configuration's position in the space."""

    def transfer_probability(self, state: SearchState) -> Tensor | None:
        """Probability that each group of layers transfers, shape (G,), of a search whose prior factorises over them."""
        return None

    def begin_batch(self, state: SearchState, generator: torch.Generator) -> SearchState:
        """Called before each mini-batch while ``SearchState.is_partial``: may choose the candidates anew.

        Args:
            state: what is known so far.
            generator: the task's source of random numbers, on the CPU; goes on from one call to the next.
        """
        return state

    def full_pass(self, state: SearchState) -> bool:
        """Whether the E-step of the next mini-batch needs all configurations, and not the candidates alone."""
        return False

    def candidates(self, state: SearchState, num_configurations: int) -> tuple[int, ...]:
        """Positions of the configurations that the next mini-batch trains, rising."""
        if state.committed is not None:
            return (state.committed,)
        part = state.pruned.kept if state.pruned is not None else state.drawn and state.drawn.positions
        return tuple(range(num_configurations)) if part is None else part
