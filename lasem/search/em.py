"""LASEM's search: expectation-maximisation over configurations while the weights are trained.

The prior before a task's first mini-batch says how probable it is that each layer transfers. The first layers of a
network are the more general ones, and what transfers through them is of more use to other tasks ([Yosinski2014]_).
Where likelihoods do not separate configurations, as in a task's first mini-batches, this decides.

.. [Lee2021] S. Lee, S. Behpour, E. Eaton. Sharing Less is More: Lifelong Learning in Deep Networks with Selective Layer
   Transfer. ICML 2021.
.. [Yosinski2014] J. Yosinski, J. Clune, Y. Bengio, H. Lipson. How transferable are features in deep neural networks?
   NeurIPS 2014.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, final

import torch
from torch import Tensor

from lasem.errors import ConfigError
from lasem.search.abstract import GroupedSelection
from lasem.search.weighing import AbstractSearch
from lasem.settings import Range
from lasem.space import bits_of

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

    def with_prior(self, prior_start: tuple[float, float] | None) -> EM:
        """Return the same with the mechanism's ``prior_start`` where the settings have none."""
        return self if self.prior_start is not None else replace(self, prior_start=prior_start)

    def init(self, num_configurations: int) -> Tensor:
        """Return the prior's mass: pseudo-counts, as many in all as configurations; for ``average`` next to nothing."""
        mass = num_configurations * _start(self.prior_start or _PRIOR_START, num_configurations)
        return _FORGOTTEN * mass if self.prior_form == "average" else mass

    def prior(self, state: Tensor) -> Tensor:
        """Return the normalised mass."""
        return state / state.sum()

    def step(self, state: Tensor, log_likelihood: Tensor) -> tuple[Tensor, Tensor]:
        """Return the posterior, and the mass with this mini-batch in it; ``count``: in the first of the largest."""
        evidence = batch_log_likelihood(log_likelihood.to(state), self.likelihood)
        posterior = torch.softmax(self.prior(state).log() + evidence, dim=0)
        if self.prior_form == "average":
            return posterior, state + posterior
        return posterior, state + torch.zeros_like(posterior).scatter_(0, posterior.argmax(dim=0, keepdim=True), 1.0)

    def commits(self, state: Tensor, epoch: int, num_epochs: int) -> bool:
        """Return whether the leading configuration is probable enough or the share of epochs is spent."""
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
