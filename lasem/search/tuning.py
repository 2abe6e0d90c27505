"""Published ways to decide what a task tunes of a pretrained network: SubTuning, TAPS and Auto-RGN.

.. [Kaplun2023] G. Kaplun, A. Gurevich, T. Swisa, M. David, S. Shalev-Shwartz, E. Malach. Less is More: Selective Layer
   Finetuning with SubTuning. arXiv 2302.06354, 2023. Algorithm 1.
.. [Wallingford2022] M. Wallingford, H. Li, A. Achille, A. Ravichandran, C. Fowlkes, R. Bhotika, S. Soatto. Task
   Adaptive Parameter Sharing for Multi-Task Learning. CVPR 2022. Section 3.
.. [Lee2023] Y. Lee, A. Chen, F. Tajwar, A. Kumar, H. Yao, P. Liang, C. Finn. Surgical Fine-Tuning Improves Adaptation
   to Distribution Shifts. ICLR 2023. Section 5.

SubTuning adds the layers that a task owns one by one, as long as that makes its cross-validation better. Auto-RGN lets
a task own all layers, and the step size of each tensor goes by its relative gradient norm. In task adaptive parameter
sharing (TAPS) a gate for each layer says whether the task adds a change to the layer's weights. Layer i computes with
w_i = w0_i + 1[s_i >= tau] delta_i, where w0_i are the weights that it transfers and delta_i and the score s_i are the
task's. The loss is::

    cross-entropy + lambda / L * sum_i |s_i|

and s_i has the gradient that it would have without the threshold (straight through), <dloss/dw_i, delta_i>.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Annotated, ClassVar, final

import torch
from torch import Tensor

from lasem.errors import ConfigError
from lasem.nets import AbstractNet, full_precision
from lasem.search.abstract import AbstractSelection, GroupedSelection, Selected
from lasem.search.evidence import cross_fitted, folds_of, without
from lasem.search.mixture import Mixture, configuration_accuracy
from lasem.search.weighing import Fixed, TriedPhase, fine_tuned, valid_logits
from lasem.settings import Range
from lasem.space import Configuration, Pattern, Space, listed
from lasem.training import AbstractPhase, Batch, EpochSummary, LayerWeights, Plan, Step, TaskStart, TaskWeights
from lasem.training.config import autocast
from lasem.training.kept import prepared
from lasem.tree import Path, flatten


@final
@dataclass(frozen=True, kw_only=True)
class SubTuning(GroupedSelection):
    """Greedy selection of the layers to own ([Kaplun2023]_, Algorithm 1), by the accuracy in cross-validation.

    A candidate is a layer of the network, or one of ``groups``. Two things are as in the authors' program: owning
    nothing is measured too, and the first layer has to be better than that. The configuration that is chosen then
    trains from the task's start, as with ``fixed``.
    """

    name: ClassVar[str] = "subtuning"
    most_groups: ClassVar[int | None] = None

    folds: Annotated[int, Range(least=2)] = 5
    """Parts of the labelled images, each of which is answered by a training on the others; at least 2."""
    epsilon: Annotated[float, Range(least=0, below=1)] = 0.01
    """A layer is added if the accuracy grows by more than this; in [0, 1)."""
    most_layers: Annotated[int, Range(least=0)] | None = None
    """Layers (or groups) that a task may own at most; None: any number."""
    step: Annotated[float, Range(above=0)] = 0.3
    """Step size of the trainings of a pretrained network in the search, relative to ``learning_rate``; positive."""

    def plan(self, start: TaskStart) -> Plan[Selected]:
        if start.space.size == 1:
            return (yield from Fixed(str(start.space[0])).plan(start))
        images = start.task.train.joined(start.task.valid) or start.task.train
        folds = folds_of(images.labels, self.folds, start.seed)
        parts = [without(start, images, folds == number) for number in range(self.folds)]
        rate = start.config.learning_rate * (self.step if start.net.pretrained else 1.0)

        def accuracy(configuration: Configuration) -> Plan[float]:
            ready = [prepared(part.only(configuration)) for part in parts]
            logits = yield from cross_fitted(ready, folds, rate, str(configuration))
            return float((logits.argmax(dim=1) == images.labels.cpu()).double().mean())

        chosen = yield from self.greedy(start.space.sizes, accuracy)
        return (yield from fine_tuned(partial(TriedPhase, Fixed(str(chosen))), start.only(chosen)))

    def greedy(self, sizes: Sequence[int], accuracy: Callable[[Configuration], Plan[float]]) -> Plan[Configuration]:
        """Yield what it takes to measure configurations, and return the one that is chosen.

        Args:
            sizes: layers in each group that is added as a whole.
            accuracy: gives the phases that measure a configuration, and returns its accuracy in [0, 1].
        """
        owned = frozenset[int]()
        best = yield from accuracy(_owning(owned, sizes))
        most = len(sizes) if self.most_layers is None else min(self.most_layers, len(sizes))
        while len(owned) < most and best + self.epsilon < 1:  # else nothing can be gained
            found: dict[int, float] = {}
            for group in sorted(set(range(len(sizes))) - owned):
                found[group] = yield from accuracy(_owning(owned | {group}, sizes))
            added = max(found, key=found.__getitem__)  # of equal ones the first
            if found[added] <= best + self.epsilon:
                break
            owned, best = owned | {added}, found[added]
        return _owning(owned, sizes)


def _owning(owned: frozenset[int], sizes: Sequence[int]) -> Configuration:
    return Configuration(tuple(group not in owned for group, size in enumerate(sizes) for _ in range(size)))


@final
@dataclass(frozen=True, kw_only=True)
class TAPS(GroupedSelection):
    """Trains a change of every layer together with a score that switches it on ([Wallingford2022]_).

    A layer whose score ends at ``threshold`` or above is the task's own, with the weights that it was trained to; the
    others are transferred. Here a layer is one that the network calls so, or one of ``groups``, with all its weights.
    What tasks share is only read, as in the paper. With a pretrained network the head starts, and the step size of
    the weights is chosen, as with ``fixed``.
    """

    name: ClassVar[str] = "taps"
    most_groups: ClassVar[int | None] = None

    penalty: Annotated[float, Range(least=0)] = 1.0
    """lambda, the weight of the mean of ``|s|``; not negative. The authors' program has 1, their scripts 0.1 to 1."""
    threshold: float = 0.1
    """tau, from which on a score switches its layer's change on."""
    start: float = 0.15
    """Score of every layer at the start; at least ``threshold``, for a change that is off has no gradient."""
    unpenalised: Annotated[int, Range(least=0)] = 2
    """First epochs, in which the loss has no penalty, as in the authors' program: changes are 0 at the start, and would
    be given up before they could help."""
    score_step: Annotated[float, Range(above=0)] = 0.01
    """Step size of the scores in the first epoch; positive. In the paper it is that of the weights, with SGD."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start < self.threshold:
            raise ConfigError(f"TAPS.start must be at least the threshold, {self.threshold}; got {self.start}.")

    def plan(self, start: TaskStart) -> Plan[Selected]:
        if start.space.size == 1:
            return (yield from Fixed(str(start.space[0])).plan(start))
        return (yield from fine_tuned(partial(TAPSPhase, self), start))


@final
@dataclass(frozen=True)
class GatedWeights:
    """A task's weights, where those of its own are w0 + delta, and a score for each group of layers."""

    layers: tuple[LayerWeights, ...]
    head: dict[str, Tensor]
    scores: Tensor
    """s, shape (L,)."""

    @property
    def plain(self) -> TaskWeights:
        """The weights without the scores."""
        return TaskWeights(self.layers, self.head)


@final
class TAPSPhase(AbstractPhase[GatedWeights]):
    """Training of all layers' changes and their scores; its outcome are the logits of the validation images."""

    def __init__(self, search: TAPS, start: TaskStart) -> None:
        """Start before the first epoch of a prepared start."""
        self.task, self.config, self.warmup = start.task, start.config, start.warmup
        self._search, self._start, self._epoch = search, start, 0
        sizes = start.space.sizes
        self._group_of = tuple(group for group, size in enumerate(sizes) for _ in range(size))
        self._network = Mixture(start.net, start.sharing, (Pattern("none").of(start.net.depth),))
        self._plain = [{n: w.to(start.device) for n, w in own.specific.items()} for own in start.weights.layers]
        self._leading = self._network.configurations[0]
        own, head = start.weights.layers, start.weights.head  # delta = 0: the task's own weights are those transferred
        layers = tuple(replace(layer, specific=self._transferred(i, layer)) for i, layer in enumerate(own))
        self._initial = GatedWeights(
            layers, head, torch.full((len(sizes),), search.start).to(next(iter(head.values())))
        )

    def initial(self) -> GatedWeights:
        return self._initial

    def scale(self, path: Path) -> float:
        match path:
            case ("scores",):
                return self._search.score_step / self.config.learning_rate
            case ("layers", _, "shared", _):
                return 0.0
        return self._start.scale(path)

    def begin_epoch(self, weights: GatedWeights, epoch: int, learning_rate: float) -> None:
        self._epoch = epoch

    def loss(self, weights: GatedWeights, batch: Batch, dropout: torch.Generator) -> Tensor:
        made = self.gated(weights)
        logits = self._network.logits(made, self._network.features(made, batch.x, training=True), dropout)
        with full_precision(batch.x.device):
            loss = batch.cross_entropy(logits[0])
            if self._epoch >= self._search.unpenalised:
                loss = loss + self._search.penalty * weights.scores.abs().mean()
            chosen = Mixture(self._start.net, self._start.sharing, (self.configuration(weights),))
            penalty = chosen.penalty(weights.plain, torch.ones_like(loss)[None])
        return loss if penalty is None else loss + penalty

    def configuration(self, weights: GatedWeights) -> Configuration:
        """Return what the scores choose: a layer is transferred if its score is below the threshold."""
        below = (weights.scores < self._search.threshold).tolist()
        return Configuration(tuple(below[group] for group in self._group_of))

    def gated(self, weights: GatedWeights) -> TaskWeights:
        """Return w for every layer, as weights of the task's own, from which gradients reach deltas and scores."""
        layers, chosen = [], self.configuration(weights)
        for i, (own, transferred) in enumerate(zip(weights.layers, chosen, strict=True)):
            base, score = self._transferred(i, own), weights.scores[self._group_of[i]]
            through = score - score.detach()  # 0, with the gradient of s
            made = {
                name: (base[name] if transferred else value) + through * (value - base[name]).detach()
                for name, value in own.specific.items()
            }
            statistics = {str(self._network.configurations[0])[: i + 1]: own.statistics_of(str(chosen)[: i + 1])}
            layers.append(LayerWeights({}, {}, made, statistics))
        return TaskWeights(tuple(layers), weights.head)

    def accuracy(self, weights: GatedWeights) -> float:
        """Of the configuration that the scores choose, which ``summary`` names."""
        start, self._leading = self._start, self.configuration(weights)
        if start.valid_accuracy is not None:
            return start.valid_accuracy
        return configuration_accuracy(start.net, start.sharing, self._leading, weights.plain, self.task.valid)

    def summary(self) -> EpochSummary:
        return EpochSummary(str(self._leading))

    def outcome(self, weights: GatedWeights) -> Tensor:
        return valid_logits(self._start, self.configuration(weights), weights.plain)

    def _transferred(self, layer: int, own: LayerWeights) -> dict[str, Tensor]:
        """Return w0 of a layer; of numbers that only a task has, such as those of a change of low rank, their start."""
        block, plain = self._start.net.blocks[layer], self._plain[layer]
        with full_precision(self._start.device):
            made = self._start.sharing.weights(block, own.shared, own.factors)
        known = {**plain, **block.held(next(iter(plain.values()), torch.empty(0))), **made}
        return {name: known[name] for name in plain}


@final
@dataclass(frozen=True, kw_only=True)
class AutoRGN(AbstractSelection):
    """Tunes all layers; each tensor's step size is multiplied by its ``relative_gradient_norms`` ([Lee2023]_).

    They are measured before every epoch. Normalisation layers stay as they start, as in the authors' program; the
    optimiser's state, which begins anew there in every epoch, goes on here. Where nothing is fine-tuned, as in the
    first task of a network that is not pretrained, all is trained as usual.
    """

    name: ClassVar[str] = "auto-rgn"

    num_batches: Annotated[int, Range(least=1)] = 5
    """Mini-batches over which the norms are averaged, as in the authors' program; at least 1."""
    steps: tuple[Annotated[float, Range(above=0)], ...] = (0.1, 1.0, 10.0)
    """What a task tries with a pretrained network, as multiples of ``learning_rate``, instead of
    ``TrainingConfig.steps``: the authors try 1e-5 to 1e-1, for only one tensor takes steps of the whole size."""

    def space(self, depth: int, task_index: int) -> Space:
        return listed([Pattern("none").of(depth)])

    def reason(self, net: AbstractNet, task_index: int) -> str:
        return f"search '{self.name}' lets every task own all layers, with a step size for each tensor"

    def plan(self, start: TaskStart) -> Plan[Selected]:
        if not (start.net.pretrained or start.fresh_weights):
            return (yield from Fixed("none").plan(start))
        start = replace(start, config=replace(start.config, steps=self.steps))
        return (yield from fine_tuned(partial(RGNPhase, self), start))


@final
class RGNPhase(TriedPhase):
    """Training of all layers, each tensor with a step size that changes from epoch to epoch."""

    def __init__(self, search: AutoRGN, start: TaskStart) -> None:
        """Start before the first epoch of a prepared start."""
        super().__init__(Fixed("none"), start)
        self._num_measured = search.num_batches
        self.scales: dict[Path, float] = {}
        """Of each tensor that is trained, in this epoch."""
        self._before: dict[Path, Tensor] = {}

    def begin_epoch(self, weights: TaskWeights, epoch: int, learning_rate: float) -> None:
        super().begin_epoch(weights, epoch, learning_rate)
        # its own source, for every epoch another: the training images keep their order, and there is no state to save
        batches = self.batches(self.start.device, self.start.generator(5, epoch))
        mixture = Mixture(self.start.net, self.start.sharing, tuple(self.start.space))
        flat = {path: tensor for path, tensor in flatten(weights).items() if tensor.requires_grad}
        moving = {path: tensor for path, tensor in flat.items() if not _normalises(path, flat)}
        gradients = []
        for batch in islice(batches, self._num_measured):
            with autocast(self.config.precision, self.start.device):
                loss = batch.cross_entropy(mixture.logits(weights, mixture.features(weights, batch.x))[0])
            gradients.append(torch.autograd.grad(loss, list(moving.values()), materialize_grads=True))
        norms = relative_gradient_norms(list(moving.values()), gradients)
        self.scales = {**dict.fromkeys(flat, 0.0), **dict(zip(moving, norms, strict=True))}

    def change_gradients(self, weights: TaskWeights, step: Step) -> None:
        flat = flatten(weights)
        self._before = {path: flat[path].detach().clone() for path in self.scales}

    def after_step(self, weights: TaskWeights, step: Step) -> None:
        """Go only a part of the optimiser's step: the same as a smaller step size, with each optimiser."""
        flat = flatten(weights)
        for path, scale in self.scales.items():
            flat[path].copy_(torch.lerp(self._before[path], flat[path], scale))


def _normalises(path: Path, flat: Mapping[Path, Tensor]) -> bool:
    """Return whether a tensor is a scale or a shift of single features: its layer has no matrix and no kernel."""
    weight = (*path[:-1], str(path[-1]).replace("bias", "weight"))
    return flat.get(weight, flat[path]).ndim < 2


@torch.no_grad()
def relative_gradient_norms(weights: Sequence[Tensor], gradients: Sequence[Sequence[Tensor]]) -> list[float]:
    """Return RGN = mean_b ||g_b|| / ||w|| of each tensor, divided by the largest: in [0, 1].

    A tensor of zeros has none; it gets 1, and does not count for the largest.

    Args:
        weights: w.
        gradients: g_b of each, for every mini-batch b.
    """
    size = torch.stack([w.norm() for w in weights])
    slope = torch.stack([torch.stack([g.norm() for g in of_batch]) for of_batch in gradients]).mean(dim=0)
    relative = torch.where(size > 0, slope / size, 0.0)
    largest = relative.max().clamp_min(torch.finfo(relative.dtype).tiny)  # where all are 0 they stay so
    found: list[float] = torch.where(size > 0, relative / largest, 1.0).tolist()
    return found
