"""A block of a pretrained module whose weights are a change of low rank, the module's own staying as they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from lasem.errors import ConfigError
from lasem.nets.block import AbstractWholeBlock, Value, Weights
from lasem.nets.cut_block import Constants, CutBlock
from lasem.nets.exact import full_precision
from lasem.nets.initial import InitialWeights

_DOWN, _UP = ".down", ".up"


@final
class ChangedBlock(AbstractWholeBlock):
    """Every kernel is W = W_0 + B A: W_0 the module's, B of shape (out, r) and A of shape (r, inputs) the weights.

    A convolution's kernel is the matrix (out, in * height * width). B starts at 0, so that a change starts from the
    module itself, and r is at most the smaller side ([Hu2022]_ in ``lasem.sharing.low_rank``). What is no kernel, such
    as biases and the scales of normalisation, stays the module's.
    """

    pretrained = True

    def __init__(self, block: CutBlock, rank: int) -> None:
        """Let a pretrained block change by so much.

        Raises:
            ConfigError: if it has no kernels.
        """
        self.name, self._block = block.name, block
        if not block.kernels:
            raise ConfigError(
                f"Block '{block.name}' has no matrix or convolution whose change could have rank {rank}. Group it with "
                f"another block."
            )
        self._held = Constants(dict(block.start))
        self._shapes: dict[str, tuple[int, ...]] = {}
        for kernel in block.kernels:
            out, inputs = block.start[kernel].shape[0], math.prod(block.start[kernel].shape[1:])
            low = min(rank, out, inputs)
            self._shapes |= {kernel + _DOWN: (low, inputs), kernel + _UP: (out, low)}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """``KERNEL.down`` A and ``KERNEL.up`` B of every kernel."""
        return self._shapes

    @property
    def statistics(self) -> dict[str, tuple[int, ...]]:
        """The block's."""
        return self._block.statistics

    @property
    def constants(self) -> Mapping[str, Tensor]:
        """What never changes: of the module everything but the statistics."""
        return {**self._block.constants, **self._held.tensors}

    def initial_statistics(self) -> dict[str, Tensor]:
        """The block's."""
        return self._block.initial_statistics()

    def fresh_share(self, keep: float) -> float:
        """As for random weights, for what A starts from is random."""
        return math.sqrt(1 - keep**2)

    def initial(self, generator: torch.Generator, rule: InitialWeights) -> dict[str, Tensor]:
        """A normal with variance 1 / inputs, B = 0; whatever ``rule`` says, no change."""
        return {
            name: torch.zeros(shape)
            if name.endswith(_UP)
            else torch.randn(shape, generator=generator) / math.sqrt(shape[1])
            for name, shape in self._shapes.items()
        }

    def apply(self, weights: Weights, x: Value) -> Value:
        """Run the module in evaluation."""
        return self._block.apply(self._changed(weights, x), x)

    def measure(self, weights: Weights, x: Value) -> tuple[Value, dict[str, Tensor]]:
        """Run the module in training; see CutBlock."""
        return self._block.measure(self._changed(weights, x), x)

    def _changed(self, weights: Weights, x: Tensor) -> dict[str, Tensor]:
        """The block's weights and statistics; kernels as exactly as they are given."""
        made = {**self._held.beside(x), **{name: weights[name] for name in self.statistics}}
        with full_precision(x.device):
            for kernel in self._block.kernels:
                change = weights[kernel + _UP] @ weights[kernel + _DOWN]
                made[kernel] = made[kernel] + change.reshape(made[kernel].shape)
        return made
