"""Which earlier task helps a new one, by features and without training; and its network as a pretrained one.

.. [Allen1974] D. M. Allen. The Relationship between Variable Selection and Data Augmentation and a Method for
   Prediction. Technometrics 16(1), 1974. The sum of squares of predictions, each without its own observation.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from lasem.data import Split
from lasem.nets import AbstractBlock, InitialWeights, Value, Weights
from lasem.sharing import HardSharing
from lasem.training import (
    LayerWeights,
    SharedProtection,
    Source,
    TaskStart,
    TaskWeights,
    evaluation_batch,
    initial_statistics,
)
from lasem.training.kept import MadeNet, WrappedBlock

_RIDGES = (0.01, 0.1, 1.0, 10.0)
"""Penalties to choose from, of the mean variance of a direction."""

_MOST_IMAGES = 1000
_MOST = 32
"""Earlier tasks that are looked at, those used last: learning a task must not take longer after thousands of them."""


def ranked(start: TaskStart) -> list[tuple[str, float]]:
    """Return some of ``start.sources`` and how well each explains the task's labelled images, the best first."""
    images = some(start.task.train.joined(start.task.valid) or start.task.train)
    labels = images.labels.cpu()
    scores = {
        name: explained(features(start, start.sources[name], images), labels) for name in list(start.sources)[-_MOST:]
    }
    return sorted(scores.items(), key=lambda one: -one[1])


def some(images: Split) -> Split:
    """Return at most a thousand images, evenly from first to last: enough to compare earlier tasks by."""
    wanted = torch.zeros(len(images), dtype=torch.bool)
    wanted[:: math.ceil(len(images) / _MOST_IMAGES)] = True
    return images if bool(wanted.all()) else images.only(wanted)


@torch.no_grad()
def features(start: TaskStart, source: Source, split: Split) -> Tensor:
    """Return what the head of an earlier task would get of images, shape (N, F), on the CPU."""
    device = start.device
    weights = [{key: value.to(device) for key, value in layer.items()} for layer in source.layers]
    found = []
    for x, _ in split.batches(evaluation_batch(start.task.image_shape), device=device):
        for block, layer in zip(start.net.blocks, weights, strict=True):
            x = block.apply(layer, x)
        found.append(x.flatten(1).cpu())
    return torch.cat(found)


def explained(x: Tensor, labels: Tensor) -> float:
    """Return the share of the labels' variance that a linear classifier explains of images outside of its training.

    Each image is answered by ridge regression on all others, in closed form ([Allen1974]_).

    Args:
        x: features, shape (N, F).
        labels: shape (N,).
    """
    x = x.double() - x.double().mean(dim=0)
    y = torch.nn.functional.one_hot(labels).double()
    y = y - y.mean(dim=0)
    u, s, _ = torch.linalg.svd(x, full_matrices=False)
    projected, best = u.T @ y, -torch.inf
    for ridge in _RIDGES:
        kept = s**2 / (s**2 + ridge * float(s.square().mean()))
        leverage = (u.square() * kept).sum(dim=1) + 1 / len(x)
        errors = (y - u @ (kept[:, None] * projected)) / (1 - leverage).clamp(min=1e-6)[:, None]
        best = max(best, 1 - float(errors.square().sum() / y.square().sum()))
    return best


@final
class _KnownBlock(WrappedBlock):
    """A layer that starts from what an earlier task has learned, and is just that where it is transferred."""

    def __init__(self, block: AbstractBlock, known: Mapping[str, Tensor]) -> None:
        """Take the layer, and its weights and statistics on the CPU."""
        super().__init__(block)
        self.pretrained, self._known = True, dict(known)

    def held(self, like: Tensor) -> Weights:
        return {name: value.to(like.device) for name, value in self._known.items()}

    def initial_statistics(self) -> dict[str, Tensor]:
        return {name: self._known[name] for name in self.statistics}

    def initial(self, generator: torch.Generator, rule: InitialWeights) -> dict[str, Tensor]:
        return {name: self._known[name] for name in self.shapes}

    def apply(self, weights: Weights, x: Value) -> Value:
        return self.block.apply({**self._missing(weights, x), **weights}, x)

    def measure(self, weights: Weights, x: Value) -> tuple[Value, dict[str, Tensor]]:
        return self.block.measure({**self._missing(weights, x), **weights}, x)

    def _missing(self, weights: Weights, x: Value) -> Weights:
        return {} if len(weights) == len(self._known) else self.held(x if isinstance(x, Tensor) else x[0])


def reusing(start: TaskStart, name: str, *, fresh: bool = False) -> TaskStart:
    """Return the start of a task whose transferred layers are an earlier task's, as they are.

    Args:
        start: of the task, with ``sources``.
        name: of the earlier task.
        fresh: whether the task's own layers begin at random; else they begin as the earlier task's.
    """
    known = start.sources[name].layers
    blocks = [_KnownBlock(block, layer) for block, layer in zip(start.net.blocks, known, strict=True)]
    net, sharing, layers = MadeNet(start.net, blocks, start.net.image_shape), HardSharing(train_shared=False), []
    for i, (block, own) in enumerate(zip(net.blocks, start.weights.layers, strict=True)):
        random = start.fresh_weights.get((i, False), own.specific)
        specific = random if fresh else block.initial(torch.Generator(), net.initial)
        statistics = initial_statistics(block, i, start.space, kept=True)
        layers.append(LayerWeights({}, {}, dict(specific), statistics))
    weights = TaskWeights(tuple(layers), start.weights.head)
    return replace(
        start,
        net=net,
        sharing=sharing,
        weights=weights,
        fresh_weights={},
        protection=SharedProtection(),
        source=name,
    )
