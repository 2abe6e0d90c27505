"""LASEM's search: expectation-maximisation over configurations while the weights are trained.

**Pruning.** Let K be the configurations that are evaluated, the smallest set with a prior of at least 1 - epsilon, pi
the prior and L_c = P(y | X, c). Exactly, q_c = pi_c L_c / sum of pi L over all; without the others' L one has

    q~_c = pi_c L_c / sum of pi L over K        for c in K, and 0 else.

On K both are in proportion: q_c = (1 - r) q~_c, r the posterior of all that is skipped. So the M-step's gradient is off
by r (gradient of K - gradient of the skipped), each averaged by its posterior, and r <= epsilon as long as the skipped
ones do not explain the mini-batch better than K does. (An optimiser that divides by the gradient's size, as Adam does,
also moves weights that no configuration of K uses, however small their q; without the others they stand still.)

The prior's mass counts what every mini-batch gave to every configuration, a_c: q_c for ``average``, 1 or 0 for
``count``. Of skipped configurations it is known only in a full pass, the last of every F mini-batches, which therefore
stands for all F. With s the sum of a over what is skipped, and g_c what c in K gained in the F - 1 mini-batches before
it (reckoned with q~ in place of q)::

    exactly:     mass_c += sum of a_c over the F mini-batches
    c skipped:   mass_c += F a_c
    c in K:      mass_c += (1 - s) g_c + a_c        which takes from K what the skipped ones are given for the F

Where the mini-batches of a block are exchangeable, the skipped ones' gain is right on average, and the whole grows by F
as it must. For ``count`` all is exact unless a skipped configuration would have won. Between full passes the skipped
ones' mass stands still while that of K grows.

.. [Lee2021] S. Lee, S. Behpour, E. Eaton. Sharing Less is More: Lifelong Learning in Deep Networks with Selective Layer
   Transfer. ICML 2021.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from lasem.errors import ConfigError, check_choice, check_range
from lasem.search.abstract import GroupedSelection
from lasem.search.prior import check_prior_start, of_choices, straight_line
from lasem.search.state import Pruned, SearchState
from lasem.search.weighing import AbstractSearch
from lasem.space import bits_of, positions

Likelihood = Literal["mean", "geometric", "product"]

_PRIOR_START = (0.6, 0.2)
"""Of transfer from the first to the last layer, where neither settings nor the mechanism say."""

_FORGOTTEN = 2.0**-600
"""Of what a mean over posteriors begins with: it decides before the first one, and is lost in rounding after it."""


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

    Where evidence is equal the prior decides, and where that is equal too the configuration that comes first: of those
    that differ in some layers only, the one that transfers none of these (in the order of ``lasem.space``). There is
    equal evidence where the latest task transferred a layer, for by default (``TrainingConfig.specific_start``) a
    task's own weights begin as copies of what is shared there, and in the first mini-batches the likelihoods are the
    same to the bit. Did it count for transfer, the next task would begin so again, and every one after it: all layers
    would be transferred for ever, as by ``Fixed("all")``.
    """

    name: ClassVar[str] = "em"

    likelihood: Likelihood = "product"
    """How the images of a mini-batch make one likelihood: ``product`` of their probabilities, as published; its
    ``geometric`` mean; or their arithmetic ``mean``, as in the authors' code."""
    prior_form: Literal["count", "average"] = "count"
    """How probable each configuration is before a mini-batch is looked at. ``count``: (n_c + 1) / sum (n_c' + 1), n_c
    the mini-batches so far whose most probable configuration was c. ``average``: running mean of all posteriors since
    the task began."""
    prior_start: tuple[float, float] | None = None
    """How probable it is that the first and that the last layer (or group) transfers, before the first mini-batch;
    between them in a straight line. Each in (0, 1); none: as the sharing mechanism has it, which is 0.8,0.1 for ``tf``,
    and 0.6,0.2 where it has nothing; 0.5,0.5: all configurations alike, as published. ``count`` begins with 2^G times
    the product over layers, where the published one begins with one for each of 2^G configurations."""
    commit_probability: float = 0.95
    """The search ends when a configuration's prior probability reaches this; above 1: never."""
    commit_share: float | None = None
    """The search ends when this share of the task's epochs is spent; 1: never; none: 0.05, or after two epochs if that
    is sooner."""
    prune: float = 0.0
    """Configurations outside the smallest set that holds 1 - ``prune`` of the prior probability are not evaluated, nor
    are layers that lead only to them; 0: all are, exactly. In [0, 1)."""
    full_pass_every: int = 10
    """With ``prune``: every so many mini-batches all configurations are evaluated once more without gradients, and the
    set is chosen anew; a GPU is waited for only then."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("EM.likelihood", self.likelihood, ("mean", "geometric", "product"))
        check_choice("EM.prior_form", self.prior_form, ("count", "average"))
        object.__setattr__(self, "prior_start", check_prior_start("EM.prior_start", self.prior_start))
        check_range("EM.commit_probability", self.commit_probability, above=0)
        if self.commit_share is not None:
            check_range("EM.commit_share", self.commit_share, above=0, most=1)
        check_range("EM.prune", self.prune, least=0, below=1)
        check_range("EM.full_pass_every", self.full_pass_every, least=1)

    def with_prior(self, prior_start: tuple[float, float] | None) -> EM:
        """The mechanism's ``prior_start`` where the settings have none."""
        return self if self.prior_start is not None else replace(self, prior_start=prior_start)

    def init(self, num_configurations: int) -> SearchState:
        """Where the prior begins as pseudo-counts, as many in all as configurations; for ``average`` next to nothing.

        A single configuration is committed to.
        """
        mass = num_configurations * _start(self.prior_start or _PRIOR_START, num_configurations)
        if self.prior_form == "average":
            mass = _FORGOTTEN * mass
        if num_configurations == 1:
            return SearchState(mass, committed=0)
        everything = tuple(range(num_configurations))
        return SearchState(mass, pruned=Pruned(everything, torch.zeros_like(mass)) if self.prune > 0 else None)

    def prior(self, state: SearchState) -> Tensor:
        """Normalised mass."""
        if state.committed is not None:
            return torch.nn.functional.one_hot(torch.tensor(state.committed), len(state.mass)).to(state.mass)
        return state.mass / state.mass.sum()

    def step(self, state: SearchState, log_likelihood: Tensor) -> tuple[Tensor, SearchState]:
        """The posterior, and the prior's mass with this mini-batch in it."""
        evidence = batch_log_likelihood(log_likelihood.to(state.mass), self.likelihood)
        if state.pruned is not None:
            return self._pruned_step(state, state.pruned, evidence)
        posterior = torch.softmax(self.prior(state).log() + evidence, dim=0)
        return posterior, replace(state, mass=state.mass + self._gain(posterior))

    def begin_batch(self, state: SearchState, generator: torch.Generator) -> SearchState:
        """Choose what to keep once ``full_pass_every`` mini-batches have gone by since the last choice."""
        pruned = state.pruned
        if pruned is None or state.committed is not None or pruned.num_batches < self.full_pass_every:
            return state
        kept = smallest_set(state.mass.tolist(), 1 - self.prune)
        return replace(state, pruned=Pruned(kept, torch.zeros_like(state.mass)))

    def full_pass(self, state: SearchState) -> bool:
        """In the last mini-batch before the next choice, if any configuration is left out."""
        pruned = state.pruned
        if pruned is None or state.committed is not None or len(pruned.kept) == len(state.mass):
            return False
        return pruned.num_batches >= self.full_pass_every - 1

    def _gain(self, posterior: Tensor) -> Tensor:
        """What one mini-batch adds to the mass; ``count``: to the first of the most probable."""
        if self.prior_form == "average":
            return posterior
        return torch.zeros_like(posterior).scatter_(0, posterior.argmax(dim=0, keepdim=True), 1.0)

    def _pruned_step(self, state: SearchState, pruned: Pruned, evidence: Tensor) -> tuple[Tensor, SearchState]:
        """``step`` where configurations may be left out; see the top of this file."""
        num_batches = pruned.num_batches + 1
        kept = positions(pruned.kept, state.mass.device)
        log_joint = self.prior(state).log()
        if len(evidence) == len(state.mass):
            log_joint = log_joint + evidence
            gain = self._gain(torch.softmax(log_joint, dim=0))
            inside = torch.zeros_like(gain).index_copy_(0, kept, gain[kept])
            outside = gain - inside
            mass = (state.mass - outside.sum() * pruned.gained).clamp_min(0) + inside + num_batches * outside
            weights = torch.zeros_like(gain).index_copy_(0, kept, torch.softmax(log_joint[kept], dim=0))
            return weights, replace(state, mass=mass, pruned=replace(pruned, num_batches=num_batches))
        weights = torch.softmax(log_joint[kept] + evidence, dim=0)
        gain = torch.zeros_like(state.mass).index_copy_(0, kept, self._gain(weights))
        pruned = replace(pruned, gained=pruned.gained + gain, num_batches=num_batches)
        return weights, replace(state, mass=state.mass + gain, pruned=pruned)

    def advance(self, state: SearchState, epoch: int, num_epochs: int) -> SearchState:
        """Commit to the leading configuration once it is probable enough or the share of epochs is spent."""
        if state.committed is None and epoch > 0:
            prior = self.prior(state)
            if epoch / num_epochs >= self.share_searched(num_epochs) or float(prior.max()) >= self.commit_probability:
                return replace(state, committed=int(prior.argmax()))
        return state

    def share_searched(self, num_epochs: int) -> float:
        """The share of a task's epochs after which the search ends at the latest."""
        return min(0.05, 2 / num_epochs) if self.commit_share is None else self.commit_share

    def best(self, state: SearchState) -> int:
        """The configuration with the largest prior."""
        return int(self.prior(state).argmax())


def _start(prior_start: tuple[float, float], num_configurations: int) -> Tensor:
    """Probabilities of configurations in the order of ``lasem.space.grouped``, before any mini-batch."""
    if prior_start == (0.5, 0.5):
        return torch.full((num_configurations,), 1 / num_configurations, dtype=torch.float64)
    num_groups = num_configurations.bit_length() - 1
    if num_configurations != 1 << num_groups:
        raise ConfigError(
            f"EM.prior_start is for all 2^G configurations of G groups of layers; got {num_configurations}. Set it to "
            f"0.5,0.5."
        )
    bits = bits_of(range(num_configurations), num_groups)
    return of_choices(bits, straight_line(prior_start, num_groups)).prod(dim=1)


def smallest_set(mass: Sequence[float], share: float) -> tuple[int, ...]:
    """The fewest positions that hold a share of the whole mass together, rising; of equal ones the first."""
    whole, held = sum(mass), 0.0
    taken: list[int] = []
    for position in sorted(range(len(mass)), key=lambda position: -mass[position]):
        if taken and held >= share * whole:
            break
        taken.append(position)
        held += mass[position]
    return tuple(sorted(taken))
