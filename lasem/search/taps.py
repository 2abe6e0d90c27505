"""Task adaptive parameter sharing: a gate for each layer says whether the task adds a change to the layer's weights.

Layer i computes with w_i = w0_i + 1[s_i >= tau] delta_i, where w0_i are the weights that it transfers and delta_i and
the score s_i are the task's. The loss is::

    cross-entropy + lambda / L * sum_i |s_i|

and s_i has the gradient that it would have without the threshold (straight through), <dloss/dw_i, delta_i>.

.. [Wallingford2022] M. Wallingford, H. Li, A. Achille, A. Ravichandran, C. Fowlkes, R. Bhotika, S. Soatto. Task
   Adaptive Parameter Sharing for Multi-Task Learning. CVPR 2022. Section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, ClassVar, final

import torch
from torch import Tensor

from lasem.errors import ConfigError
from lasem.nets import full_precision
from lasem.search.abstract import GroupedSelection, Selected
from lasem.search.mixture import Mixture, configuration_accuracy
from lasem.search.weighing import Fixed, fine_tuned, valid_logits
from lasem.settings import Range
from lasem.space import Configuration, Pattern
from lasem.training import AbstractPhase, Batch, EpochSummary, LayerWeights, Plan, TaskStart, TaskWeights
from lasem.tree import Path


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
    """lambda, the weight of the mean of |s|; not negative. The authors' program has 1, their scripts 0.1 to 1."""
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
