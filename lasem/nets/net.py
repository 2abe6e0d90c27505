"""A plain convolutional network: convolutions one after another, linear layers, and the head."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

from lasem.errors import ConfigError, check_choice, check_range
from lasem.nets.abstract import AbstractNet
from lasem.nets.block import AbstractBlock, ConvBlock, LinearBlock
from lasem.nets.head import Head
from lasem.nets.initial import InitialWeights
from lasem.settings import to_plain


@final
@dataclass(frozen=True, kw_only=True)
class Net(AbstractNet):
    """A convolutional network as settings: a saved model holds them and builds the network again.

    Raises:
        ConfigError: if the sizes do not fit each other or are out of range.
    """

    image_shape: tuple[int, int, int]
    """Channels, height and width of the images."""
    channels: tuple[int, ...]
    """Output channels of each convolution, input side first."""
    kernels: tuple[int, ...]
    """Side of each convolution's kernel."""
    pools: tuple[int, ...]
    """Window and stride of the max-pooling behind each convolution; 1 for none."""
    strides: tuple[int, ...] = ()
    """Stride of each convolution; empty for 1 everywhere."""
    linear: tuple[int, ...] = ()
    """Fully-connected layers that may be transferred, between the convolutions and the head."""
    hidden: tuple[int, ...] = (64,)
    """Hidden layers of the head, which belong to the task."""
    dropout: float = 0.5
    """Share of the features that training drops, once, where the head begins."""
    initial: InitialWeights = "he"
    """How plain weights start."""

    def __post_init__(self) -> None:
        for field in ("image_shape", "channels", "kernels", "pools", "strides", "linear", "hidden"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        object.__setattr__(self, "strides", self.strides or (1,) * len(self.channels))
        if len(self.image_shape) != 3:
            raise ConfigError(f"Net.image_shape is (channels, height, width); got {self.image_shape}.")
        if not len(self.channels) == len(self.kernels) == len(self.pools) == len(self.strides):
            raise ConfigError(
                f"Net needs one kernel, one pool and one stride for each of its {len(self.channels)} convolutions; "
                f"got {len(self.kernels)} kernels, {len(self.pools)} pools, {len(self.strides)} strides."
            )
        if not self.channels and not self.linear:
            raise ConfigError("Net needs at least one layer that can be transferred; got none.")
        for field in ("image_shape", "channels", "kernels", "pools", "strides", "linear", "hidden"):
            for value in getattr(self, field):
                check_range(f"Net.{field}", value, least=1)
        check_range("Net.dropout", self.dropout, least=0, below=1)
        check_choice("Net.initial", self.initial, ("he", "paper"))

    @cached_property  # baselines ask in every step
    def blocks(self) -> tuple[AbstractBlock, ...]:
        """The layers that may be transferred, input side first."""
        blocks: list[AbstractBlock] = list(self._convolutions())
        features = self._num_flattened()
        for size in self.linear:
            blocks.append(LinearBlock(features, size))
            features = size
        return tuple(blocks)

    @cached_property
    def head(self) -> Head:
        """The stack that every task owns."""
        return Head(self.linear[-1] if self.linear else self._num_flattened(), self.hidden, self.dropout)

    @property
    def depth(self) -> int:
        """Number of layers that may be transferred."""
        return len(self.channels) + len(self.linear)

    def description(self) -> dict[str, Any]:
        """The settings."""
        return to_plain(self)

    def _convolutions(self) -> list[ConvBlock]:
        inputs = (self.image_shape[0], *self.channels)
        layers = zip(inputs, self.channels, self.kernels, self.strides, self.pools, strict=False)
        return [ConvBlock(*layer) for layer in layers]

    def _num_flattened(self) -> int:
        channels, height, width = self.image_shape
        for block in self._convolutions():
            channels, height, width = block.out_channels, block.output_size(height), block.output_size(width)
        return channels * height * width
