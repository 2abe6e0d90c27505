"""An earlier task's network as a pretrained one: what a new task transfers of it is used as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from lasem.nets import AbstractBlock, InitialWeights, Value, Weights
from lasem.sharing import HardSharing
from lasem.training.kept import MadeNet, WrappedBlock
from lasem.training.task_start import LayerWeights, SharedProtection, TaskStart, TaskWeights, initial_statistics


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
