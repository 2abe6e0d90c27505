"""A small network for photographs that is trained from scratch: normalised convolutions and a head of one layer.

.. [Ioffe2015] S. Ioffe, C. Szegedy. Batch Normalization. ICML 2015.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor

from lasem.errors import ConfigError, TrainingError
from lasem.nets.block import AbstractBlock, ConvBlock, Head, InitialWeights, Size, SizedNet, Value, Weights


@final
@dataclass(frozen=True)
class NormalisedBlock(AbstractBlock):
    """Convolution, batch normalisation ([Ioffe2015]_), ReLU, and max-pooling or the mean over all places.

    The bias is added to what is normalised. There is no scale for each channel: ReLU and pooling pass a positive one
    on, so that the next layer's weights can hold it.
    """

    conv: ConvBlock
    averaged: bool = False
    """Whether the mean over all places takes the place of the convolution's pooling."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return self.conv.shapes

    @property
    def statistics(self) -> dict[str, tuple[int, ...]]:
        return {"mean": (self.conv.out_channels,), "variance": (self.conv.out_channels,)}

    def initial_statistics(self) -> dict[str, Tensor]:
        return {"mean": torch.zeros(self.conv.out_channels), "variance": torch.ones(self.conv.out_channels)}

    def initial(self, generator: torch.Generator, rule: InitialWeights) -> dict[str, Tensor]:
        drawn = self.conv.initial(generator, rule)
        return {**drawn, "weight": drawn["weight"] / math.sqrt(6)}  # as large as torch's, so that steps are, too

    def preactivate(self, weights: Weights, x: Tensor) -> Tensor:
        x = self.conv.preactivate({"weight": weights["weight"]}, x)
        return F.batch_norm(x, weights["mean"], weights["variance"], bias=weights.get("bias"))

    def measure(self, weights: Weights, x: Tensor) -> tuple[Value, dict[str, Tensor]]:
        measured = {name: weights[name].clone() for name in self.statistics}
        x = self.conv.preactivate({"weight": weights["weight"]}, x)
        if x.numel() == x.shape[1]:
            raise TrainingError(
                "A network that normalises by the mini-batch cannot be trained on one image of one pixel. Set "
                "TrainingConfig.batch_size to 2 or more."
            )
        x = F.batch_norm(x, measured["mean"], measured["variance"], bias=weights.get("bias"), training=True)
        return self.reduce(F.relu(x, inplace=True)), measured

    def reduce(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3), keepdim=True) if self.averaged else self.conv.reduce(x)


@final
@dataclass(frozen=True, kw_only=True)
class SmallNet(SizedNet):
    """Convolutions of 3x3, each normalised, and each but the last one pooled by 2; of that the mean over all places.

    The head gets one number for each channel, so that nearly all of the network can be shared, whatever the images'
    size. Running statistics are the task's, as in other networks that have any.
    """

    channels: tuple[Size, ...] = (32, 64, 128, 256)
    """Output channels of each convolution, input side first."""
    hidden: tuple[Size, ...] = ()
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.channels:
            raise ConfigError("SmallNet.channels needs at least one number; got none.")

    @cached_property  # methods ask in every step
    def blocks(self) -> tuple[AbstractBlock, ...]:
        sizes, last = (self.image_shape[0], *self.channels), len(self.channels) - 1
        return tuple(
            NormalisedBlock(
                ConvBlock(sizes[i], sizes[i + 1], 3, pool=1 if i == last else 2, pool_border=self.pool_border),
                averaged=i == last,
            )
            for i in range(last + 1)
        )

    @cached_property
    def head(self) -> Head:
        return Head(self.channels[-1], self.hidden, self.dropout)

    def description(self) -> dict[str, Any]:
        return {"kind": "small", **super().description()}


def small(image_shape: tuple[int, int, int] = (3, 64, 64)) -> SmallNet:
    """Build the default network for photographs that no pretrained backbone is used for."""
    return SmallNet(image_shape=image_shape)
