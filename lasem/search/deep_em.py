"""LASEM's search for networks too deep for a tree: the prior factorises over layers, and samples stand for the sum.

With p_l the probability that layer l transfers, the prior is pi(c) = product over l of p_l or 1 - p_l, and the E-step
as before q_c = pi_c L_c / sum of pi L. The sum over 2^d configurations is replaced by one over m of them::

    w_i = L(c_i) / sum over j of L(c_j)        c_1 kept from the draw before, c_2 ... c_m drawn from pi

and everything that is an expectation under q (the M-step's gradient, the layers' posteriors) by the sum with these
weights. What the next draw keeps is drawn by them too. This is iterated sampling importance resampling: the kept one
follows a Markov chain whose stationary distribution is q, and if it is distributed as q, the weighted sum's expectation
is exactly that under q, for any m >= 2 ([Andrieu2018]_, [Cardoso2022]_). With Z = E_pi L, by the symmetry of the m::

    E sum_i w_i g(c_i) = sum over all tuples of q(c_1) pi(c_2) ... pi(c_m) sum_i w_i g(c_i)
                       = (1 / Z) E_pi [(1/m) sum_j L(c_j) sum_i w_i g(c_i)] = E_pi [L g] / Z = E_q g

m draws from pi alone would be off by a term of order 1 / m. The likelihood changes from one mini-batch to the next, and
q with it; the chain follows. With ``draw_every`` above 1 the prior moves while the samples stay, and L(c_i) gets the
factor pi(c_i) now / pi(c_i) then. Where m is at least 2^d all configurations are evaluated and the step is exact.

.. [Lee2021] S. Lee, S. Behpour, E. Eaton. Sharing Less is More: Lifelong Learning in Deep Networks with Selective Layer
   Transfer. ICML 2021. The search over whole configurations that this one follows.
.. [Andrieu2018] C. Andrieu, A. Lee, M. Vihola. Uniform ergodicity of the iterated conditional SMC and geometric
   ergodicity of particle Gibbs samplers. Bernoulli 24(2), 2018.
.. [Cardoso2022] G. Cardoso, S. Samsonov, A. Thin, E. Moulines, J. Olsson. BR-SNIS: Bias Reduced Self-Normalized
   Importance Sampling. NeurIPS 2022.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal, final

import torch
from torch import Tensor

from lasem.errors import ConfigError, TrainingError
from lasem.search.abstract import GroupedSelection
from lasem.search.em import Likelihood, batch_log_likelihood, check_prior_start, log_prior, straight_line
from lasem.search.weighing import AbstractSearch
from lasem.settings import Range
from lasem.space import bits_of
from lasem.tree import map_tensors


def _no_numbers() -> Tensor:
    return torch.zeros(0, dtype=torch.float64)


@final
@dataclass(frozen=True)
class DeepEMState:
    """What a search over G groups of layers has found out, and the m configurations that it has drawn."""

    mass: Tensor
    """Evidence for both choices of each group, shape (G, 2), float64."""
    positions: tuple[int, ...] = ()
    """Of the drawn configurations, rising; empty before the first draw."""
    bits: Tensor = field(default_factory=_no_numbers)
    """1 where a group transfers, shape (m, G), float64."""
    log_factor: Tensor = field(default_factory=_no_numbers)
    """Added to the logarithm of prior times likelihood, for they are drawn and not listed, shape (m,)."""
    weights: Tensor = field(default_factory=_no_numbers)
    """The latest M-step's, shape (m,)."""
    num_batches: int = 0
    """Mini-batches since the draw."""


@final
@dataclass(frozen=True, kw_only=True)
class DeepEM(GroupedSelection, AbstractSearch[DeepEMState]):
    """EM with a prior for each layer and a few configurations a mini-batch; its cost grows linearly in the depth.

    Equal evidence leaves a layer's probability where it was, on average over the draws (``average``): from one half on,
    it would be chance that transfers every second layer. A layer therefore begins nearer to weights of the task's own,
    and transfer has to earn its place; in ``EM``, too, equal evidence counts for what transfers less.
    """

    name: ClassVar[str] = "deep-em"
    most_groups: ClassVar[int | None] = None

    num_samples: Annotated[int, Range(least=2)] = 4
    """Configurations drawn for a mini-batch; equal ones are evaluated once. At least 2."""
    likelihood: Likelihood = "product"
    """How the images of a mini-batch make one likelihood: ``product`` of their probabilities, as published; its
    ``geometric`` mean; or their arithmetic ``mean``, as in the authors' code."""
    prior_form: Literal["count", "average"] = "average"
    """How probable it is that a layer transfers, before a mini-batch is looked at. ``average``: mean of the layer's
    posteriors so far. ``count``: of its choices in the most probable configuration, among those evaluated, of every
    mini-batch so far."""
    prior_start: tuple[float, float] | None = None
    """How probable it is that the first and that the last layer (or group) transfers, before the first mini-batch;
    between them in a straight line. Each in (0, 1); none: 1/3 for ``average``, and 1/2 for ``count``, where equal
    evidence counts for less transfer already."""
    prior_weight: Annotated[float, Range(above=0)] = 12.0
    """How many mini-batches that counts for; if few, a layer whose samples agree by chance is soon decided."""
    draw_every: Annotated[int, Range(least=1)] = 1
    """Mini-batches that the same configurations are evaluated for; a GPU is waited for at each draw."""
    commit_probability: Annotated[float, Range(above=0)] = 0.95
    """The search ends when in every layer one of the choices has this probability; above 1: never."""
    commit_share: Annotated[float, Range(above=0, most=1)] = 0.25
    """The search ends when this share of the task's epochs is spent; 1: never. A layer then transfers if its
    probability is above one half."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "prior_start", check_prior_start("DeepEM.prior_start", self.prior_start))

    def init(self, num_configurations: int) -> DeepEMState:
        """Return what each of the G groups that make 2^G configurations begins with."""
        num_groups = num_configurations.bit_length() - 1
        if num_configurations != 1 << num_groups:
            raise ConfigError(f"DeepEM needs all 2^G configurations of G groups of layers; got {num_configurations}.")
        even = 1 / 3 if self.prior_form == "average" else 1 / 2
        probability = straight_line(self.prior_start or (even, even), num_groups)
        return DeepEMState(self.prior_weight * torch.stack([1 - probability, probability], dim=1))

    def transfer_probability(self, state: DeepEMState) -> Tensor:
        return state.mass[:, 1] / state.mass.sum(dim=1)

    def begin_batch(self, state: DeepEMState, generator: torch.Generator) -> DeepEMState:
        """Draw configurations, ``draw_every`` mini-batches after the last draw."""
        num_groups = len(state.mass)
        if 0 < state.num_batches < self.draw_every:
            return state
        if num_groups < self.num_samples.bit_length():  # 2^G <= m: all of them, which are no samples
            if state.positions:
                return state
            positions = tuple(range(2**num_groups))
            bits = bits_of(positions, num_groups)
            log_factor = torch.zeros(len(positions), dtype=torch.float64)
        else:
            probability = self.transfer_probability(state).cpu()
            times = Counter(self._draw(state, probability, generator))
            positions = tuple(sorted(times))
            bits = bits_of(positions, num_groups)
            multiplicity = torch.tensor([times[position] for position in positions], dtype=torch.float64)
            log_factor = multiplicity.log() - log_prior(bits, probability)
        drawn = DeepEMState(state.mass, positions, bits, log_factor, torch.zeros_like(log_factor))
        return map_tensors(lambda t: t.to(state.mass.device), drawn)

    def candidates(self, state: DeepEMState, num_configurations: int) -> tuple[int, ...]:
        return state.positions

    def _draw(self, state: DeepEMState, probability: Tensor, generator: torch.Generator) -> list[int]:
        """Return positions of ``num_samples`` configurations, the first kept from the draw before if there was one.

        Raises:
            TrainingError: if the likelihoods are no longer finite.
        """
        kept = []
        if state.positions:
            weights = state.weights.cpu()
            if not bool(weights.isfinite().all()):
                raise TrainingError(
                    "The likelihoods of the configurations were not finite in the last mini-batch; training has "
                    "stopped and what was learned before is untouched. Try a smaller learning_rate."
                )
            kept = [state.positions[int(torch.multinomial(weights, 1, generator=generator))]]
        shape = (self.num_samples - len(kept), len(probability))
        fresh = torch.rand(shape, dtype=torch.float64, generator=generator) < probability
        return kept + [int("".join(map(str, row)), 2) for row in fresh.int().tolist()]

    def step(self, state: DeepEMState, log_likelihood: Tensor) -> tuple[Tensor, DeepEMState]:
        """Return the weights of what was drawn, and the mass with this mini-batch in it."""
        evidence = batch_log_likelihood(log_likelihood.to(state.mass), self.likelihood)
        log_joint = log_prior(state.bits, self.transfer_probability(state)) + evidence
        weights = torch.softmax(log_joint + state.log_factor, dim=0)
        if self.prior_form == "average":
            transferred = weights @ state.bits
        else:
            transferred = state.bits.index_select(0, log_joint.argmax(dim=0, keepdim=True))[0]
        mass = state.mass + torch.stack([1 - transferred, transferred], dim=1)
        return weights, replace(state, mass=mass, weights=weights, num_batches=state.num_batches + 1)

    def commits(self, state: DeepEMState, epoch: int, num_epochs: int) -> bool:
        """Return whether the choice is clear in every layer, or the share of epochs is spent."""
        if epoch == 0:
            return False
        probability = self.transfer_probability(state)
        clear = float(torch.maximum(probability, 1 - probability).min())
        return epoch / num_epochs >= self.commit_share or clear >= self.commit_probability

    def best(self, state: DeepEMState) -> int:
        """Return each layer's own choice: it transfers if its probability is above one half."""
        return int("0" + "".join("1" if p > 0.5 else "0" for p in self.transfer_probability(state).tolist()), 2)
