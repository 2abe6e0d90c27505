"""Starts of layers, for the tests of sharing mechanisms."""

from typing import Any, NamedTuple

import torch
from nets.modules import generator
from torch import Tensor

from lasem.nets import AbstractBlock
from lasem.sharing import AbstractSharing


class Start(NamedTuple):
    plain: dict[str, Tensor]
    shared: dict[str, Tensor]
    own: dict[str, Tensor]
    made: dict[str, Tensor]


def start(sharing: AbstractSharing, block: AbstractBlock, rule: Any = "he", seed: int = 0) -> Start:
    """A layer's plain weights, what is shared and what a first task owns of it, and the weights of both."""
    plain = block.initial(generator(seed), rule)
    shared = sharing.initial_shared(block, plain, generator(seed + 1))
    own = sharing.initial_task(block, shared, plain, generator(seed + 2))
    return Start(plain, shared, own, sharing.weights(block, shared, own))


def random(shapes: dict[str, tuple[int, ...]], dtype: torch.dtype = torch.float64, seed: int = 0) -> dict[str, Tensor]:
    return {k: torch.randn(s, dtype=dtype, generator=generator(seed + n)) for n, (k, s) in enumerate(shapes.items())}


def shapes_of(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in tensors.items()}
