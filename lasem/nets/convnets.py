"""Networks whose blocks are more than a convolution: residual ones, the paper's among them, and a small normalised one.

The small one is for photographs, and trained from scratch.

.. [He2016] K. He, X. Zhang, S. Ren, J. Sun. Deep Residual Learning for Image Recognition. CVPR 2016.
.. [Ioffe2015] S. Ioffe, C. Szegedy. Batch Normalization. ICML 2015.
.. [Zhang2019] H. Zhang, Y. N. Dauphin, T. Ma. Fixup Initialization. ICLR 2019.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor

from lasem.errors import ConfigError, TrainingError
from lasem.nets.block import AbstractBlock, ConvBlock, Head, InitialWeights, Size, SizedNet, Value, Weights


@dataclass(frozen=True)
class _ConvolutionBlock(AbstractBlock):
    """A block with the weights of one convolution."""

    conv: ConvBlock

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return self.conv.shapes

    def initial(self, generator: torch.Generator, rule: InitialWeights) -> dict[str, Tensor]:
        return self.conv.initial(generator, rule)


@final
@dataclass(frozen=True)
class OpeningBlock(_ConvolutionBlock):
    """The first convolution of a residual block, with ReLU, without pooling; its input goes on next to its output."""

    def preactivate(self, weights: Weights, x: Value) -> Tensor:
        return self.conv.preactivate(weights, x)

    def activate(self, weights: Weights, x: Value) -> Value:
        return F.relu(self.preactivate(weights, x), inplace=True), x


@final
@dataclass(frozen=True)
class ClosingBlock(_ConvolutionBlock):
    """The second convolution of a residual block, with ReLU and its pooling; the block's input is added.

    Where the convolution has more channels than the input, zeros replace the input's missing ones ([He2016]_, option
    A): every weight of the network belongs to one of its convolutions. The input is a pair of tensors (batch, ...,
    height, width): the first is convolved, the second added.
    """

    scale: float = 1.0
    """Factor on the kernel of variance-keeping weights at the start, but not on the paper's; below 1, sums of many
    residuals stay small ([Zhang2019]_)."""
    added_last: bool = False
    """Whether the block's input is added after ReLU, as in the paper, and not before it."""

    def initial(self, generator: torch.Generator, rule: InitialWeights) -> dict[str, Tensor]:
        weights = super().initial(generator, rule)
        return weights if rule == "paper" else weights | {"weight": weights["weight"] * self.scale}

    def preactivate(self, weights: Weights, x: Value) -> Tensor:
        out = self.conv.preactivate(weights, x[0])
        return out if self.added_last else out + self._skipped(x[1])

    def activate(self, weights: Weights, x: Value) -> Value:
        out = super().activate(weights, x)
        return out + self._skipped(x[1]) if self.added_last else out

    def _skipped(self, x: Tensor) -> Tensor:
        missing = self.conv.out_channels - x.shape[1]
        return F.pad(x, (0, 0, 0, 0, 0, missing)) if missing else x

    def reduce(self, x: Value) -> Value:
        return self.conv.reduce(x)


@final
@dataclass(frozen=True, kw_only=True)
class ResNet(SizedNet):
    """A stem, then stages of residual blocks of two 3x3 convolutions each; 17 convolutions as it stands.

    As in the paper's other networks, convolutions have biases and stride 1 and nothing is normalised; sides are halved
    by pooling. In the paper groups of layers decide together: ``groups`` of a
    search are 5,4,4,4 (4G), 5,4,4,2,2 (5G), 5,4,2,2,2,2 (6G), 5,2,2,2,2,2,2 (7G) or 3,2,2,2,2,2,2,2 (8G), whose borders
    fall between residual blocks. Any other groups work: inside a residual block, its input goes along.
    """

    form: Literal["padded", "paper"] = "padded"
    """``padded``: every residual block has a skip connection, which is added before ReLU, with zeros for missing
    channels; sides are halved after the stem and after each stage but the last. ``paper``: the first block of each
    stage after the first has none, because its channels change; skip connections are added after ReLU; sides are halved
    after the stem and after the first convolution of each later stage."""

    channels: tuple[Size, ...] = (64, 128, 256, 512)
    """Of each stage, never fewer than of the one before; the stem has as many as the first stage."""
    blocks_per_stage: Size = 2
    """Residual blocks in each stage; at least 1."""
    stem_kernel: Size = 7
    """Side of the stem's kernel."""
    hidden: tuple[Size, ...] = (1000,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.channels or list(self.channels) != sorted(self.channels):
            raise ConfigError(
                f"ResNet.channels needs one number for each stage, none smaller than the one before; got "
                f"{list(self.channels)}."
            )

    @cached_property  # methods ask in every step
    def blocks(self) -> tuple[AbstractBlock, ...]:
        paper, num_stages = self.form == "paper", len(self.channels)
        num_skips = num_stages * self.blocks_per_stage - paper * (num_stages - 1)
        blocks: list[AbstractBlock] = [ConvBlock(self.image_shape[0], self.channels[0], self.stem_kernel, pool=2)]
        inputs = self.channels[0]
        for stage, width in enumerate(self.channels):
            for place in range(self.blocks_per_stage):
                if paper and stage > 0 and place == 0:
                    blocks += [ConvBlock(inputs, width, 3, pool=2), ConvBlock(width, width, 3)]
                else:
                    halved = not paper and place == self.blocks_per_stage - 1 and stage < num_stages - 1
                    closing = ConvBlock(width, width, 3, pool=2 if halved else 1)
                    opening = OpeningBlock(ConvBlock(inputs, width, 3))
                    blocks += [opening, ClosingBlock(closing, num_skips**-0.5, added_last=paper)]
                inputs = width
        return tuple(blocks)

    @cached_property
    def head(self) -> Head:
        height, width = self.image_shape[1:]
        for _ in self.channels:  # after the stem, and once between two stages
            height, width = -(-height // 2), -(-width // 2)
        return Head(self.channels[-1] * height * width, self.hidden, self.dropout)

    def description(self) -> dict[str, Any]:
        return {"kind": "resnet", **super().description()}


def resnet(image_shape: tuple[int, int, int] = (3, 32, 32)) -> ResNet:
    """Build the paper's residual network, with 17 convolutions and five skip connections."""
    return ResNet(image_shape=image_shape, form="paper")


def padded_resnet(image_shape: tuple[int, int, int] = (3, 32, 32)) -> ResNet:
    """Build one with as many convolutions, and a skip connection in each of its eight residual blocks."""
    return ResNet(image_shape=image_shape)


@final
@dataclass(frozen=True)
class NormalisedBlock(_ConvolutionBlock):
    """Convolution, batch normalisation ([Ioffe2015]_), ReLU, and max-pooling or the mean over all places.

    The bias is added to what is normalised. There is no scale for each channel: ReLU and pooling pass a positive one
    on, so that the next layer's weights can hold it.
    """

    averaged: bool = False
    """Whether the mean over all places takes the place of the convolution's pooling."""

    @property
    def statistics(self) -> dict[str, tuple[int, ...]]:
        return {"mean": (self.conv.out_channels,), "variance": (self.conv.out_channels,)}

    def initial_statistics(self) -> dict[str, Tensor]:
        return {"mean": torch.zeros(self.conv.out_channels), "variance": torch.ones(self.conv.out_channels)}

    def initial(self, generator: torch.Generator, rule: InitialWeights) -> dict[str, Tensor]:
        drawn = super().initial(generator, rule)
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
