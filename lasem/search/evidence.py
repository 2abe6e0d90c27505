"""LASEM's search ([Lee2021]_) by evidence: configurations are weighed by images that they were not trained on.

The task's labelled images are divided into K folds. For each fold the M-step trains the mixture of all configurations
on the other folds, a configuration drawn evenly for each mini-batch, and the E-step scores every one on the fold. With
ell_n(c) = log p(y_n | x_n, c) of the N images, each from the training that has not seen it::

    L(c) = sum_n ell_n(c)
    se(c, c') = sqrt(N) std_n(ell_n(c) - ell_n(c'))        the standard error of L(c) - L(c')

The likeliest one, one that owns little and the one that owns nothing are then trained by themselves on the same folds,
those of a pretrained network with each step size. The task gets the one that owns least among those at most a part of a
standard error below the best (after [Breiman1984]_'s rule), and trains it from the start. Log-likelihoods of held-out
images tell configurations apart where accuracies do not: with 30 images an accuracy's standard error is 9 points.

Where tasks may use what earlier ones have learned (``TaskStart.sources``), the shared layers are those of the earlier
task whose features suit the new one best (``lasem.search.sources``), used as a pretrained network's. What the task owns
begins as that task's layers, too; to own all of them is always tried. Such layers have seen few images, and a training
without a fold, short and with fewer images, counts against what owns much. So the task gets the one that owns *most*
among those at most a standard error below the best: layers are used as they are where that is clearly better.

The prior of a configuration, p_l for each layer l, is learned from the tasks before. Of each searched task s the
logarithm b_sl of a Bayes factor is kept: how much likelier its images are outside of the training where the layer is
transferred. With p_l before any image of a task, its posterior is q_sl, and p_l is the mean of the posteriors and of a
share m in as many tasks as a (empirical Bayes, [Robbins1956]_)::

    q_sl = sigmoid(logit p_l + b_sl)
    p_l = (a m + sum_s q_sl) / (a + S)

Bayes factors are kept, and not posteriors, so that the prior never counts what it has said itself.

.. [Breiman1984] L. Breiman, J. Friedman, R. Olshen, C. Stone. Classification and Regression Trees. 1984. Section 3.4.3.
.. [Lee2021] S. Lee, S. Behpour, E. Eaton. Sharing Less is More: Lifelong Learning in Deep Networks with Selective Layer
   Transfer. ICML 2021. The posterior over configurations, and the M-step by it.
.. [Robbins1956] H. Robbins. An Empirical Bayes Approach to Statistics. Third Berkeley Symposium, 1956.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar, NamedTuple, final

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lasem.data import Split
from lasem.nets.block import generator_of
from lasem.search.abstract import GroupedSelection, Offer, Selected
from lasem.search.em import log_prior
from lasem.search.mixture import Mixture, evaluate, log_likelihood
from lasem.search.sources import ranked, reusing
from lasem.search.weighing import (
    AbstractSearch,
    Fixed,
    MixturePhase,
    TriedPhase,
    judged,
    outcome_of,
    shortened,
    trained,
)
from lasem.settings import Range, read_value
from lasem.space import Configuration, listed
from lasem.training import Plan, TaskStart, TaskWeights, evaluation_batch
from lasem.training.kept import prepared

_FEW_WRONG = 2
"""Images outside of the training that are answered wrongly: so few could not tell a gain from chance."""
_TIMES = 4
"""What multiplies ``Evidence.errors`` where layers are an earlier task's."""
_MORE_ERRORS = 1.5
"""Standard errors by which a configuration may be worse in the mixture than when it is trained by itself."""

_START, _MASS = 0.5, 4.0
_STEPS = 100
"""Of the learned prior: m, a, and how often its two equations are solved."""
_PENALTY = 0.1
"""Inverse penalty of a fold's first head: no image chooses it, for those that could are the ones that are scored."""


class Price(NamedTuple):
    """What a configuration's costs are worth, as log-likelihood of an image."""

    parameters: Annotated[float, Range(least=0)] = 0.0
    """Of each million of numbers that the task owns, its head not counted; not negative."""
    compute: Annotated[float, Range(least=0)] = 0.0
    """Of each billion of multiply-adds for an image, in convolutions and matrix products, from the first layer with
    anything that is the task's own to the last; not negative. Layers before it are computed once for all tasks that
    answer, and once for a whole training; those after it are not, even where they are transferred."""


_FREE = Price()


@final
@dataclass(frozen=True, kw_only=True)
class Evidence(GroupedSelection):
    """EM whose likelihood is that of images outside of the training, by cross-fitting; see the module."""

    name: ClassVar[str] = "evidence"
    most_groups: ClassVar[int | None] = 8  # 256 configurations, each scored on every image
    retired: ClassVar[dict[str, Any]] = {"margin": None}  # see EM.retired

    folds: Annotated[int, Range(least=2)] = 2
    """Parts of the labelled images, each of which is scored by trainings on the others; at least 2."""
    epochs_share: Annotated[float, Range(above=0, most=1)] = 0.25
    """Share of the task's epochs in which the mixture of all configurations is trained for each fold; in (0, 1]."""
    step: Annotated[float, Range(above=0)] = 0.5
    """Step size of the mixture's training, relative to ``learning_rate``; positive."""
    most_owned: Annotated[float, Range(least=0, most=1)] = 0.35
    """Share of a pretrained network's numbers that a task may own at most; in [0, 1]."""
    errors: Annotated[float, Range(least=0)] = 0.25
    """How many standard errors the evidence of the configuration that owns least may be below the best; where layers
    are an earlier task's, four times as many for the one that owns most. 0: the best."""
    price: Price = _FREE
    """What a configuration has to bring for what it costs; a number alone is the price of parameters."""
    temper: Annotated[float, Range(above=0, most=1)] = 0.3
    """What multiplies log-likelihoods where they meet the prior: those of a few images outside of the training are
    surer than they should be; in (0, 1]."""
    enough: Annotated[float, Range(above=0, most=1)] = 0.99
    """Accuracy outside of the training with which a configuration that transfers all is taken at once; in (0, 1]."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "price", read_value(self.price, Price, "Evidence.price"))
        super().__post_init__()

    def plan(self, start: TaskStart) -> Plan[Selected]:
        if start.space.size == 1:
            return (yield from Fixed(str(start.space[0])).plan(start))
        images = start.task.train.joined(start.task.valid) or start.task.train
        folds = folds_of(images.labels, self.folds, start.seed)
        explained = ranked(start)
        searched = reusing(start, explained[0][0]) if explained else start
        found, evidence, frontier = yield from self._search(searched, images, folds)
        scores, owned = torch.stack([one.scores for one in found]), torch.tensor([one.owned for one in found])
        offsets = torch.tensor([one.offset for one in found], dtype=torch.float64)
        chosen = found[self.choose(scores, owned, offsets, reused=bool(explained))]
        only = chosen.start
        make = partial(TriedPhase, Fixed(str(only.space[0])))
        judgement = chosen.accuracy, chosen.temperature
        # a pretrained network has tried steps in the other half; layers that saw few images need all of it
        share = 1 / 2 if only.net.pretrained and only.source is None else 1.0
        selection = yield from trained(make, only, prepared(only), chosen.rate, *judgement, share)
        return replace(selection, explained=tuple(explained), evidence=evidence, frontier=frontier)

    def _search(
        self, start: TaskStart, images: Split, folds: Tensor
    ) -> "Plan[tuple[list[_Found], tuple[float, ...], tuple[Offer, ...]]]":
        """Yield trainings of all configurations, then of some by themselves.

        Return what was found of these, and evidence and frontier of ``Selected``.
        """
        start, owned = self.affordable(start)
        space, labels = start.space, images.labels
        starts = [without(start, images, folds == number) for number in range(self.folds)]
        computed = multiply_adds(start)
        offsets = self._offsets(start, owned, computed, len(images))
        by_itself = partial(self._by_itself, start, starts, folds, labels, offsets)
        found = yield from by_itself(space.size - 1)
        if self._is_enough(found[0], len(images)):
            return found, (), ()
        logits = yield from self.mixture_logits(starts, folds)
        finalists = self.finalists(log_likelihood(logits, labels.cpu()), owned, offsets)
        for position in finalists if start.source is None else sorted({0, *finalists}):
            found += yield from by_itself(position)
        judgements = [judged(of_one, labels) for of_one in logits]
        likelihood = torch.stack([scores.double().sum() for scores, _, _ in judgements])
        evidence = bayes_factors(_bits(space), self.temper * likelihood)
        best = undominated([accuracy for _, accuracy, _ in judgements], owned.tolist())
        frontier = tuple(Offer(str(space[c]), judgements[c][1], int(owned[c]), int(computed[c])) for c in best)
        return found, tuple(evidence.tolist()), frontier

    def mixture_logits(self, starts: Sequence[TaskStart], folds: Tensor) -> Plan[Tensor]:
        """Yield a training of the mixture ``without`` each fold; return the logits of each image, (C, N, classes)."""
        logits = torch.zeros(starts[0].space.size, len(folds), starts[0].task.num_classes)
        for number, part in enumerate(starts):
            result = yield _MixedPhase(self, part, f"evidence {number + 1} of {self.folds}")
            logits[:, folds == number] = outcome_of(result).cpu()
        return logits

    def _offsets(self, start: TaskStart, owned: Tensor, computed: Tensor, num_images: int) -> Tensor:
        """Return what is added to configurations' sums of log-likelihoods, shape (C,): of the prior, less the price."""
        prior = learned_prior(start.evidence, start.net.depth)
        price = self.price.parameters * owned / 1e6 + self.price.compute * computed / 1e9
        return log_prior(_bits(start.space), prior) / self.temper - num_images * price

    def _is_enough(self, found: "_Found", num_images: int) -> bool:
        """Return whether so little is answered wrongly that nothing could be gained."""
        return found.accuracy >= self.enough or round((1 - found.accuracy) * num_images) <= _FEW_WRONG

    def affordable(self, start: TaskStart) -> tuple[TaskStart, Tensor]:
        """Return the start with those configurations that own no more than they may, and the numbers that each owns.

        Of a network that was not pretrained all are kept.
        """
        owned = {c: _num_owned(start.only(c).weights) for c in start.space}
        if start.net.pretrained and start.source is None:
            most = self.most_owned * max(owned.values())
            owned = {c: num for c, num in owned.items() if num <= most or all(c)}
        return replace(start, space=listed(list(owned))), torch.tensor(list(owned.values()))

    def _by_itself(
        self,
        start: TaskStart,
        parts: Sequence[TaskStart],
        folds: Tensor,
        labels: Tensor,
        offsets: Tensor,
        position: int,
    ) -> "Plan[list[_Found]]":
        """Yield trainings of one configuration without each fold, and return what they found."""
        only = start.only(start.space[position])
        owned, found = _num_owned(only.weights), list[_Found]()
        ready = [prepared(part.only(only.space[0])) for part in parts]
        config, name = ready[0].config, str(only.space[0])
        has_steps = ready[0].net.pretrained and ready[0].solved is None and start.source is None
        share = 1 / 4 if start.source is None else 1 / 3
        for step in config.steps if has_steps and config.steps else (1.0,):
            rate = step * config.learning_rate
            title = f"{name}, step {rate:.0e}" if has_steps else name
            logits = yield from cross_fitted(ready, folds, rate, title, share)
            found.append(_Found(only, owned, float(offsets[position]), rate, *judged(logits, labels)))
        return found

    def finalists(self, scores: Tensor, owned: Tensor, offsets: Tensor | None = None) -> list[int]:
        """Return the positions of configurations to train by themselves, besides the one that transfers all.

        These are the likeliest one, and the one that owns least among those not far from it: a mixture's weights suit
        none of its configurations as well as weights of its own. Arguments as of ``choose``.
        """
        near = self.errors + _MORE_ERRORS
        found = {replace(self, errors=errors).choose(scores, owned, offsets) for errors in (0.0, near)}
        return sorted(found - {len(scores) - 1})

    def choose(self, scores: Tensor, owned: Tensor, offsets: Tensor | None = None, *, reused: bool = False) -> int:
        """Return the position of the configuration that a task gets.

        Args:
            scores: log-likelihood of each image that the configuration was not trained on, shape (C, N).
            owned: numbers that the task would own, shape (C,).
            offsets: what is added to a configuration's sum, shape (C,); None: nothing.
            reused: whether shared layers are an earlier task's, so that owning most is preferred, not least.
        """
        errors, owned = (_TIMES * self.errors, -owned) if reused else (self.errors, owned)
        sums = scores.sum(dim=1) if offsets is None else scores.sum(dim=1) + offsets
        best = int(sums.argmax())
        error = (scores[best] - scores).std(dim=1) * math.sqrt(scores.shape[1])
        lost = sums[best] - sums
        near = lost <= errors * error
        least = near & (owned == owned[near].min())
        return int(torch.where(least, lost, math.inf).argmin())


def _bits(configurations: Iterable[Configuration]) -> Tensor:
    """Return 1 where a configuration transfers a layer, else 0, shape (C, d)."""
    return torch.tensor([configuration.bits for configuration in configurations], dtype=torch.int64)


def _num_owned(weights: TaskWeights) -> int:
    """Return the numbers in weights that are a task's own."""
    parts = [part for layer in weights.layers for part in (layer.factors, layer.specific)]
    return sum(tensor.numel() for part in parts for tensor in part.values())


@torch.no_grad()
def multiply_adds(start: TaskStart) -> Tensor:
    """Return how many multiply-adds ``Price.compute`` counts for each configuration, int64 of shape (C,)."""
    images = start.task.train
    x, _ = next(images.only(torch.arange(len(images)) == 0).batches(1))
    of_layers, found = list[int](), list[int]()
    for block in start.net.blocks:
        weights = block.initial(torch.Generator(), start.net.initial) | block.initial_statistics()
        with FlopCounterMode(display=False) as counter:
            x = block.apply(weights, x)
        of_layers.append(counter.get_total_flops() // 2)
    for configuration in start.space:
        letters, first = str(configuration), 0
        for own in start.only(configuration).weights.layers:
            if own.factors or own.specific or own.statistics_of(letters[: first + 1]):
                break
            first += 1
        found.append(sum(of_layers[first:]))
    return torch.tensor(found)


def undominated(values: Sequence[float], costs: Sequence[float]) -> list[int]:
    """Return the positions of what is better than all that costs no more, the cheapest first."""
    best, found = -math.inf, list[int]()
    for position in sorted(range(len(values)), key=lambda c: (costs[c], -values[c])):
        if values[position] > best:
            best, found = values[position], [*found, position]
    return found


@final
@dataclass(frozen=True)
class _Found:
    """What is known of a configuration, trained with one step size."""

    start: TaskStart
    """Of it alone."""
    owned: int
    """Numbers that the task would own."""
    offset: float
    """What is added to the sum of its scores."""
    rate: float
    scores: Tensor
    """Log-likelihood of each image outside of the training, at the temperature that suits them, shape (N,)."""
    accuracy: float
    temperature: float


@final
class _MixedPhase(MixturePhase["_DrawnState"]):
    """Training of the mixture without a fold; its outcome are the logits of the fold's images, (C, n, num_classes)."""

    def __init__(self, search: Evidence, start: TaskStart, title: str) -> None:
        short = shortened(start, search.step * start.config.learning_rate, search.epochs_share)
        super().__init__(_Drawn(), short, title=title, forgets=None)

    def outcome(self, weights: TaskWeights) -> Tensor:
        start, size = self.start, max(1, evaluation_batch(self.task.image_shape) // 4)
        mixture = Mixture(start.net, start.sharing, tuple(start.space))
        batches = self.task.valid.batches(size, device=start.device)
        return torch.cat([evaluate(mixture, weights, x) for x, _ in batches], dim=1)


@final
@dataclass(frozen=True)
class _DrawnState:
    num_configurations: int
    position: int = 0
    """Of the configuration that the mini-batch trains."""


@final
@dataclass(frozen=True)
class _Drawn(AbstractSearch[_DrawnState]):
    """Trains one configuration in each mini-batch, drawn evenly; weighs none."""

    name: ClassVar[str] = "drawn"

    def init(self, num_configurations: int) -> _DrawnState:
        return _DrawnState(num_configurations)

    def begin_batch(self, state: _DrawnState, generator: torch.Generator) -> _DrawnState:
        position = int(torch.randint(state.num_configurations, (1,), generator=generator))
        return replace(state, position=position)

    def candidates(self, state: _DrawnState, num_configurations: int) -> tuple[int, ...]:
        return (state.position,)

    def step(self, state: _DrawnState, log_likelihood: Tensor) -> tuple[Tensor, _DrawnState]:
        return torch.ones(1, device=log_likelihood.device), state

    def best(self, state: _DrawnState) -> int:
        """Return the configuration that owns most layers, which is what the records show."""
        return 0


def learned_prior(factors: Sequence[Sequence[float]], depth: int) -> Tensor:
    """Return p of each layer, float64 of shape (d,), from the b of earlier tasks, shape (S, d); 0.5 before the first.

    The two equations are solved in turn, which rises to a maximum of the likelihood as EM does.
    """
    b = torch.tensor([list(of_task) for of_task in factors], dtype=torch.float64).reshape(len(factors), depth)
    p = torch.full((depth,), _START, dtype=torch.float64)
    for _ in range(_STEPS if len(b) else 0):
        p = (_MASS * _START + torch.sigmoid(p.logit() + b).sum(dim=0)) / (_MASS + len(b))
    return p


def bayes_factors(transfers: Tensor, evidence: Tensor) -> Tensor:
    """Return b of each layer, shape (d,), where all configurations that agree in it are equally probable.

    Args:
        transfers: 1 where a configuration transfers a layer, else 0, shape (C, d).
        evidence: log-likelihood of each configuration, shape (C,).
    """
    found = []
    for bits in transfers.bool().T:
        sides = [evidence[side].double() for side in (bits, ~bits)]
        means = [side.logsumexp(dim=0) - torch.tensor(len(side)).log() for side in sides if len(side)]
        found.append(means[0] - means[1] if len(means) == 2 else torch.zeros((), dtype=torch.float64))
    return torch.stack(found)


def folds_of(labels: Tensor, num_folds: int, seed: tuple[int, ...]) -> Tensor:
    """Return each image's fold, shape (N,): of every class as many as possible in each."""
    order = torch.randperm(len(labels), generator=generator_of(seed, 4))
    order = order[labels.cpu()[order].argsort(stable=True)]
    folds = torch.empty(len(labels), dtype=torch.int64)
    folds[order] = torch.arange(len(labels)) % num_folds
    return folds


def without(start: TaskStart, images: Split, held_out: Tensor) -> TaskStart:
    """Return the start of a training without some images, which validate."""
    task = replace(start.task, train=images.only(~held_out), valid=images.only(held_out))
    config = replace(start.config, patience=0, drop_last=False)  # there may be fewer images than in a mini-batch
    return replace(start, task=task, config=config, strength=_PENALTY)


def cross_fitted(
    ready: Sequence[TaskStart],
    folds: Tensor,
    rate: float,
    title: str,
    share: float = 1 / 6,
) -> Plan[Tensor]:
    """Yield short trainings of one configuration, each without a fold.

    Args:
        ready: for each fold a prepared start ``without`` it, with one configuration.
        folds: each image's fold, shape (N,).
        rate: step size.
        title: of the phases, before their number.
        share: of the task's epochs that each training takes.

    Returns:
        The logits of each image from the training that has not seen it, shape (N, num_classes).
    """
    logits = torch.zeros(len(folds), ready[0].task.num_classes)
    for number, part in enumerate(ready):
        words = f"{title}, {number + 1} of {len(ready)}"
        result = yield TriedPhase(Fixed(), shortened(part, rate, share), title=words, forgets=None)
        logits[folds == number] = outcome_of(result)
    return logits
