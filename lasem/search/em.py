"""LASEM's search: expectation-maximisation over configurations while the weights are trained.

.. [Lee2021] S. Lee, S. Behpour, E. Eaton. Sharing Less is More: Lifelong Learning in Deep Networks with Selective Layer
   Transfer. ICML 2021.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from lasem.errors import check_choice, check_range
from lasem.search.abstract import AbstractSearch, SearchState
from lasem.search.grouped import GroupedSelection

Likelihood = Literal["mean", "geometric", "product"]


def batch_log_likelihood(log_likelihood: Tensor, kind: Likelihood) -> Tensor:
    """One number for each configuration and mini-batch, the logarithm of P(y | X, c).

    Args:
        log_likelihood: log p(y_n | x_n, c), shape (C, batch).
        kind: ``product`` of the probabilities as published, their ``geometric`` mean, or their arithmetic ``mean`` as
            the authors' code has it.

    Returns:
        Shape (C,).
    """
    batch = log_likelihood.shape[1]
    if kind == "product":
        return log_likelihood.sum(dim=1)
    if kind == "geometric":
        return log_likelihood.mean(dim=1)
    return log_likelihood.logsumexp(dim=1) - math.log(batch)


@final
@dataclass(frozen=True, kw_only=True)
class EM(GroupedSelection, AbstractSearch):
    """E-step: posterior proportional to prior times likelihood. M-step: one optimiser step on sum_c posterior_c CE_c.

    Prior, likelihood and the choice at the end are [Lee2021]_'s; commitment ends the search when its outcome is clear.
    """

    name: ClassVar[str] = "em"

    likelihood: Likelihood = "product"
    """How the images of a mini-batch make one likelihood; see ``batch_log_likelihood``."""
    prior_form: Literal["count", "average"] = "count"
    """``count``: (n_c + 1) / sum (n_c' + 1), n_c the mini-batches so far whose most probable configuration was c.
    ``average``: running mean of all posteriors since the task began."""
    commit_probability: float = 0.95
    """The search ends when the leading configuration's prior reaches this; above 1: never."""
    commit_share: float = 0.05
    """The search ends when this share of the task's epochs is spent; 1: never."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("EM.likelihood", self.likelihood, ("mean", "geometric", "product"))
        check_choice("EM.prior_form", self.prior_form, ("count", "average"))
        check_range("EM.commit_probability", self.commit_probability, above=0)
        check_range("EM.commit_share", self.commit_share, above=0, most=1)

    def init(self, num_configurations: int) -> SearchState:
        """One pseudo-count each for ``count``, nothing yet for ``average``; a single configuration is committed to."""
        start = 1.0 if self.prior_form == "count" else 0.0
        mass = torch.full((num_configurations,), start, dtype=torch.float64)
        return SearchState(mass, committed=0 if num_configurations == 1 else None)

    def prior(self, state: SearchState) -> Tensor:
        """Normalised mass; uniform before the first mini-batch."""
        if state.committed is not None:
            return torch.nn.functional.one_hot(torch.tensor(state.committed), len(state.mass)).to(state.mass)
        total = state.mass.sum()
        return torch.where(total > 0, state.mass / total, torch.full_like(state.mass, 1 / len(state.mass)))

    def step(self, state: SearchState, log_likelihood: Tensor) -> tuple[Tensor, SearchState]:
        """The posterior, and the prior's mass with this mini-batch in it."""
        evidence = batch_log_likelihood(log_likelihood.to(state.mass), self.likelihood)
        posterior = torch.softmax(self.prior(state).log() + evidence, dim=0)
        if self.prior_form == "average":
            return posterior, replace(state, mass=state.mass + posterior)
        winner = torch.zeros_like(posterior).scatter_(0, posterior.argmax(dim=0, keepdim=True), 1.0)
        return posterior, replace(state, mass=state.mass + winner)

    def advance(self, state: SearchState, progress: float) -> SearchState:
        """Commit to the leading configuration once it is probable enough or the share of epochs is spent."""
        if state.committed is None and progress > 0:
            prior = self.prior(state)
            if progress >= self.commit_share or float(prior.max()) >= self.commit_probability:
                return replace(state, committed=int(prior.argmax()))
        return state

    def best(self, state: SearchState) -> int:
        """The configuration with the largest prior."""
        return int(self.prior(state).argmax())
