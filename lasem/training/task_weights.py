"""All weights that are alive while one task is learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from lasem.nets import AbstractBlock
from lasem.sharing import AbstractSharing
from lasem.space import Space
from lasem.space.configuration import SPECIFIC, TRANSFER


@final
@dataclass(frozen=True)
class LayerWeights:
    """One layer's: shared knowledge, the task's part of it if transferred, plain weights if not, and statistics."""

    shared: dict[str, Tensor]
    factors: dict[str, Tensor]
    specific: dict[str, Tensor]
    statistics: dict[str, Tensor] = field(default_factory=dict)
    """Running statistics, which training measures and no optimiser moves. What reaches a layer depends on the choices
    before it, so there are some for every prefix of a configuration: ``ST.norm.running_mean``."""

    def statistics_of(self, block: AbstractBlock, prefix: str) -> dict[str, Tensor]:
        """Those of the layer after some choices; where they are not kept for each prefix, after its last one."""
        own = prefix if any(f"{prefix}.{name}" in self.statistics for name in block.statistics) else prefix[-1:]
        return {name: self.statistics[f"{own}.{name}"] for name in block.statistics}


@final
@dataclass(frozen=True)
class TaskWeights:
    """The layers' weights, input side first, and the head's. A part that no configuration uses is empty."""

    layers: tuple[LayerWeights, ...]
    head: dict[str, Tensor]

    def named(self) -> dict[str, Tensor]:
        """Every tensor under one flat name such as ``layer.0.shared.weight`` or ``head.bias.1``."""
        flat = {f"head.{name}": value for name, value in self.head.items()}
        for i, layer in enumerate(self.layers):
            for part in ("shared", "factors", "specific", "statistics"):
                flat |= {f"layer.{i}.{part}.{name}": value for name, value in getattr(layer, part).items()}
        return flat

    @classmethod
    def from_named(cls, flat: Mapping[str, Tensor], num_layers: int) -> TaskWeights:
        """Build what ``named`` flattened."""
        layers = tuple(LayerWeights({}, {}, {}, {}) for _ in range(num_layers))
        head: dict[str, Tensor] = {}
        for key, value in flat.items():
            room, rest = key.split(".", 1)
            if room == "head":
                head[rest] = value
            else:
                index, part, name = rest.split(".", 2)
                getattr(layers[int(index)], part)[name] = value
        return cls(layers, head)

    def copy(self, *, device: torch.device | None = None, requires_grad: bool = False) -> TaskWeights:
        """Detached copies of every tensor."""
        flat = {
            name: value.detach().to(device=device, copy=True).requires_grad_(requires_grad and not is_statistic(name))
            for name, value in self.named().items()
        }
        return TaskWeights.from_named(flat, len(self.layers))

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.named().values())


def initial_statistics(block: AbstractBlock, layer: int, space: Space) -> dict[str, Tensor]:
    """Those of ``LayerWeights.statistics`` before anything was measured, on the CPU.

    Where a space has too many members to be listed, all prefixes with the same last choice share them.
    """
    if not block.statistics:
        return {}
    prefixes = {str(c)[: layer + 1]: None for c in space} if space.is_listed else dict.fromkeys((SPECIFIC, TRANSFER))
    return {
        f"{prefix}.{name}": value.clone() for prefix in prefixes for name, value in block.initial_statistics().items()
    }


def is_statistic(name: str) -> bool:
    """Whether one of ``TaskWeights.named`` is a running statistic."""
    return name.startswith("layer.") and name.split(".", 3)[2] == "statistics"


def part_of(flat: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose flat names begin with ``prefix`` and a dot, by the rest of their names."""
    return {name.removeprefix(prefix + "."): t for name, t in flat.items() if name.startswith(prefix + ".")}


def step_of(sharing: AbstractSharing, name: str) -> float:
    """Step size of one of ``TaskWeights.named``, relative to plain weights': what is transferred has its own."""
    if is_statistic(name):
        return 0.0  # it is measured
    if name.startswith("head."):
        return 1.0
    _, _, part, parameter = name.split(".", 3)
    return 1.0 if part == "specific" else sharing.step(parameter)
