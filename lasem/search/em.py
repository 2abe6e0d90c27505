"""LASEM's search: expectation-maximisation over configurations while the weights are trained.

The prior before a task's first mini-batch says how probable it is that each layer transfers. The first layers of a
network are the more general ones, and what transfers through them is of more use to other tasks ([Yosinski2014]_).
Where likelihoods do not separate configurations, as in a task's first mini-batches, this decides.

For networks too deep for a tree (``DeepEM``) the prior factorises over layers, and samples stand for the sum. With p_l
the probability that layer l transfers, the prior is pi(c) = product over l of p_l or 1 - p_l, and the E-step as before
q_c = pi_c L_c / sum of pi L. The sum over 2^d configurations is replaced by one over m of them::

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
   Transfer. ICML 2021.
.. [Yosinski2014] J. Yosinski, J. Clune, Y. Bengio, H. Lipson. How transferable are features in deep neural networks?
   NeurIPS 2014.
.. [Andrieu2018] C. Andrieu, A. Lee, M. Vihola. Uniform ergodicity of the iterated conditional SMC and geometric
   ergodicity of particle Gibbs samplers. Bernoulli 24(2), 2018.
.. [Cardoso2022] G. Cardoso, S. Samsonov, A. Thin, E. Moulines, J. Olsson. BR-SNIS: Bias Reduced Self-Normalized
   Importance Sampling. NeurIPS 2022.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, final

import torch
from torch import Tensor

from lasem.errors import ConfigError, TrainingError
from lasem.search.abstract import GroupedSelection
from lasem.search.weighing import AbstractSearch
from lasem.settings import Range
from lasem.space import bits_of
from lasem.tree import map_tensors

Likelihood = Literal["mean", "geometric", "product"]

_PRIOR_START = (0.6, 0.2)
"""Of transfer from the first to the last layer, where neither settings nor the mechanism say."""

_FORGOTTEN = 2.0**-600
"""Of what a mean over posteriors begins with: it decides before the first one, and is lost in rounding after it."""


@final
@dataclass(frozen=True, kw_only=True)
class EM(GroupedSelection, AbstractSearch[Tensor]):
    """E-step: posterior proportional to prior times likelihood. M-step: one optimiser step on sum_c posterior_c CE_c.

    Prior, likelihood and the choice at the end are [Lee2021]_'s; commitment ends the search when its outcome is clear.

    Where evidence is equal the prior decides, and where that is equal too the configuration that comes first: of those
    that differ in some layers only, the one that transfers none of these (in the order of ``lasem.space``). There is
    equal evidence where the latest task transferred a layer, for by default (``TrainingConfig.specific_start``) a
    task's own weights begin as copies of what is shared there, and in the first mini-batches the likelihoods are the
    same to the bit. Did it count for transfer, the next task would begin so again, and every one after it: all layers
    would always be transferred, as by ``Fixed("all")``.
    """

    name: ClassVar[str] = "em"
    retired: ClassVar[dict[str, Any]] = {"prune": 0.0, "full_pass_every": None}
    """Settings that a file of an earlier version may hold, with a value that means nothing any more; None: any."""
    most_groups: ClassVar[int | None] = 10  # all configurations are trained at once

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
    ties: Literal["own", "transfer"] = "own"
    """Which of equally probable configurations is chosen. ``own``: the first, as above. ``transfer``: as the authors'
    code orders them, the one that transfers the last layer, of these the one that transfers the layer before it, ...;
    so that all layers are transferred where all are equal."""
    commit_probability: Annotated[float, Range(above=0)] = 0.95
    """The search ends when a configuration's prior probability reaches this; above 1: never."""
    commit_share: Annotated[float, Range(above=0, most=1)] | None = None
    """The search ends when this share of the task's epochs is spent; 1: never; none: after two epochs, or one if there
    are no more than 20."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "prior_start", check_prior_start("EM.prior_start", self.prior_start))

    def with_prior(self, prior_start: tuple[float, float] | None) -> "EM":
        return self if self.prior_start is not None else replace(self, prior_start=prior_start)

    def init(self, num_configurations: int) -> Tensor:
        """Return the prior's mass: pseudo-counts, as many in all as configurations; for ``average`` next to nothing."""
        mass = num_configurations * _start(self.prior_start or _PRIOR_START, num_configurations)
        return _FORGOTTEN * mass if self.prior_form == "average" else mass

    def prior(self, state: Tensor) -> Tensor:
        return state / state.sum()

    def step(self, state: Tensor, log_likelihood: Tensor) -> tuple[Tensor, Tensor]:
        """Return the posterior, and the mass with this mini-batch in it; ``count``: in the first of the largest."""
        evidence = batch_log_likelihood(log_likelihood.to(state), self.likelihood)
        posterior = torch.softmax(self.prior(state).log() + evidence, dim=0)
        if self.prior_form == "average":
            return posterior, state + posterior
        return posterior, state + torch.zeros_like(posterior).scatter_(0, posterior.argmax(dim=0, keepdim=True), 1.0)

    def commits(self, state: Tensor, epoch: int, num_epochs: int) -> bool:
        if epoch == 0:
            return False
        spent = epoch / num_epochs >= self.share_searched(num_epochs)
        return spent or float(self.prior(state).max()) >= self.commit_probability

    def share_searched(self, num_epochs: int) -> float:
        """Return the share of a task's epochs after which the search ends at the latest."""
        return min(0.05, 2 / num_epochs) if self.commit_share is None else self.commit_share

    def best(self, state: Tensor) -> int:
        prior = self.prior(state)
        if self.ties == "own":
            return int(prior.argmax())
        equal: list[int] = (prior == prior.max()).nonzero()[:, 0].tolist()
        return max(equal, key=lambda position: f"{position:0{(len(prior) - 1).bit_length()}b}"[::-1])


def batch_log_likelihood(log_likelihood: Tensor, kind: Likelihood) -> Tensor:
    """Return log P(y | X, c), shape (C,), of one mini-batch from log p(y_n | x_n, c), shape (C, batch)."""
    batch = log_likelihood.shape[1]
    if kind == "product":
        return log_likelihood.sum(dim=1)
    if kind == "geometric":
        return log_likelihood.mean(dim=1)
    return log_likelihood.logsumexp(dim=1) - math.log(batch)


def check_prior_start(setting: str, start: Sequence[float] | None) -> tuple[float, float] | None:
    """Return the probabilities of the first and of the last layer; ConfigError unless both are in (0, 1), or none."""
    if start is None:
        return None
    if len(start) != 2:
        raise ConfigError(
            f"{setting} is two probabilities of transfer, of the first and of the last layer, such as 0.6,0.2; got "
            f"{', '.join(map(str, start))}."
        )
    for probability in start:
        Range(above=0, below=1).check(setting, probability)
    first, last = start
    return first, last


def straight_line(start: tuple[float, float], num_groups: int) -> Tensor:
    """Return the probability of transfer of each group, first to last, float64; of a single one their mean."""
    if num_groups == 1:
        return torch.tensor([sum(start) / 2], dtype=torch.float64)
    return torch.linspace(*start, num_groups, dtype=torch.float64)


def of_choices(bits: Tensor, probability: Tensor) -> Tensor:
    """Return how probable each group's own choice is, shape (n, G); a row's product is its configuration's prior.

    Args:
        bits: 1 where a group transfers, shape (n, G).
        probability: of transfer, shape (G,).
    """
    return torch.where(bits > 0, probability, 1 - probability)


def log_prior(bits: Tensor, probability: Tensor) -> Tensor:
    """Return the logarithm of each configuration's prior, shape (n,); arguments as of ``of_choices``."""
    return of_choices(bits, probability).log().sum(dim=1)


def _start(prior_start: tuple[float, float], num_configurations: int) -> Tensor:
    """Return probabilities of configurations in the order of ``lasem.space.grouped``, before any mini-batch."""
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
        num_groups = num_configurations.bit_length() - 1
        if num_configurations != 1 << num_groups:
            raise ConfigError(f"DeepEM needs all 2^G configurations of G groups of layers; got {num_configurations}.")
        even = 1 / 3 if self.prior_form == "average" else 1 / 2
        probability = straight_line(self.prior_start or (even, even), num_groups)
        return DeepEMState(self.prior_weight * torch.stack([1 - probability, probability], dim=1))

    def transfer_probability(self, state: DeepEMState) -> Tensor:
        return state.mass[:, 1] / state.mass.sum(dim=1)

    def begin_batch(self, state: DeepEMState, generator: torch.Generator) -> DeepEMState:
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

        TrainingError if the likelihoods are no longer finite.
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
        if epoch == 0:
            return False
        probability = self.transfer_probability(state)
        clear = float(torch.maximum(probability, 1 - probability).min())
        return epoch / num_epochs >= self.commit_share or clear >= self.commit_probability

    def best(self, state: DeepEMState) -> int:
        """Return each layer's own choice: it transfers if its probability is above one half."""
        return int("0" + "".join("1" if p > 0.5 else "0" for p in self.transfer_probability(state).tolist()), 2)
