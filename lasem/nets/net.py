"""Plain convolutional networks, the paper's among them (Lee, Behpour, Eaton, ICML 2021), and all networks by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, final

from torch import Tensor

from lasem.errors import ConfigError, StorageError
from lasem.nets.backbone import stored_timm
from lasem.nets.block import AbstractBlock, AbstractNet, ConvBlock, Head, LinearBlock, Size, SizedNet
from lasem.nets.cut_net import StoredNet, check_described
from lasem.nets.pretrained import stored_transformers
from lasem.nets.resnet import ResNet, padded_resnet, resnet
from lasem.nets.small import SmallNet, small
from lasem.settings import check_choice, from_plain

ImageShape = tuple[int, int, int]


@final
@dataclass(frozen=True, kw_only=True)
class Net(SizedNet):
    """A plain convolutional network."""

    channels: tuple[Size, ...]
    """Output channels of each convolution, input side first."""
    kernels: tuple[Size, ...]
    """Side of each convolution's kernel."""
    pools: tuple[Size, ...]
    """Window and stride of the max-pooling after each convolution; 1 for none."""
    strides: tuple[Size, ...] = ()
    """Stride of each convolution; empty for 1 everywhere."""
    linear: tuple[Size, ...] = ()
    """Fully-connected layers that may be transferred, between the convolutions and the head."""
    hidden: tuple[Size, ...] = (64,)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "strides", self.strides or (1,) * len(self.channels))
        if not len(self.channels) == len(self.kernels) == len(self.pools) == len(self.strides):
            raise ConfigError(
                f"Net needs one kernel, one pool and one stride for each of its {len(self.channels)} convolutions; "
                f"got {len(self.kernels)} kernels, {len(self.pools)} pools, {len(self.strides)} strides."
            )
        if not self.channels and not self.linear:
            raise ConfigError("Net needs at least one layer that can be transferred; got none.")

    @cached_property  # methods ask in every step
    def blocks(self) -> tuple[AbstractBlock, ...]:
        sizes = (self._num_flattened(), *self.linear)
        return (*self._convolutions(), *(LinearBlock(*pair) for pair in pairwise(sizes)))

    @cached_property
    def head(self) -> Head:
        return Head(self.linear[-1] if self.linear else self._num_flattened(), self.hidden, self.dropout)

    def _convolutions(self) -> list[ConvBlock]:
        inputs = (self.image_shape[0], *self.channels)
        layers = zip(inputs, self.channels, self.kernels, self.strides, self.pools, strict=False)
        return [ConvBlock(*layer, self.pool_border) for layer in layers]

    def _num_flattened(self) -> int:
        channels, height, width = self.image_shape
        for block in self._convolutions():
            channels, height, width = block.out_channels, block.output_size(height), block.output_size(width)
        return channels * height * width


def cifar(image_shape: ImageShape = (3, 32, 32), *, depth: Literal[4, 6, 8] = 4) -> Net:
    """Build the CIFAR-100 network with 4, 6 or 8 convolutions of 3x3; each second one is pooled."""
    check_choice("depth", str(depth), ("4", "6", "8"))
    return Net(
        image_shape=image_shape,
        channels=(32, 32, 64, 64, 128, 128, 128, 128)[:depth],
        kernels=(3,) * depth,
        pools=(1, 2) * (depth // 2),
    )


def office_home(image_shape: ImageShape = (3, 128, 128)) -> Net:
    """Build the Office-Home network: 4 convolutions of 11x11, 5x5, 3x3 and 3x3."""
    return Net(
        image_shape=image_shape,
        channels=(64, 256, 256, 256),
        kernels=(11, 5, 3, 3),
        pools=(3, 3, 2, 2),
        hidden=(256, 64),
    )


def stl10(image_shape: ImageShape = (3, 96, 96)) -> Net:
    """Build the STL-10 network: 6 convolutions of 3x3; each second one is pooled by 3."""
    return Net(
        image_shape=image_shape,
        channels=(32, 32, 64, 64, 128, 128),
        kernels=(3,) * 6,
        pools=(1, 3) * 3,
        hidden=(128, 16),
    )


def digits(image_shape: ImageShape = (1, 8, 8)) -> Net:
    """Build a small network for the embedded digits: 4 convolutions of 3x3; each second one is pooled."""
    return Net(image_shape=image_shape, channels=(16, 16, 32, 32), kernels=(3,) * 4, pools=(1, 2, 1, 2), hidden=(32,))


NETS: dict[str, Callable[[ImageShape], AbstractNet]] = {
    "cifar": cifar,
    "cifar-6": lambda shape: cifar(shape, depth=6),
    "cifar-8": lambda shape: cifar(shape, depth=8),
    "office-home": office_home,
    "stl-10": stl10,
    "digits": digits,
    "small": small,
    "resnet": resnet,
    "resnet-padded": padded_resnet,
}
"""The networks that a name on the command line can mean."""

_SIZED: dict[str, type[SizedNet]] = {"plain": Net, "resnet": ResNet, "small": SmallNet}
"""Networks that are their settings, by kind of description."""


def for_images(image_shape: ImageShape) -> SizedNet:
    """Build a network for images of a size: ``small`` for colour images of 17 to 112 pixels, else the paper's one."""
    photographs = image_shape[0] == 3 and 16 < max(image_shape[1:]) <= 112
    return small(image_shape) if photographs else of_paper(image_shape)


def of_paper(image_shape: ImageShape) -> Net:
    """Build the network that the paper's choices suggest: digits to 16 pixels, CIFAR to 64, STL-10 to 112."""
    side = max(image_shape[1:])
    return (digits if side <= 16 else cifar if side <= 64 else stl10 if side <= 112 else office_home)(image_shape)


_STORED = {"timm": stored_timm, "transformers": stored_transformers}


def rebuild(
    description: Mapping[str, Any],
    given: AbstractNet | None = None,
    tensors: Callable[[], Mapping[str, Tensor]] = dict,
) -> AbstractNet:
    """Build the network of a description (``AbstractNet.description``).

    Args:
        description: what was saved. A plain network has no ``kind``.
        given: the network, if the caller has it; a module that was cut must be given, because code is never saved.
        tensors: reads those of a pretrained module (``AbstractNet.tensors``).

    Raises:
        StorageError: if ``given`` is another network, or is needed.
        ConfigError: if the description is damaged.
    """
    kind = description.get("kind", "plain")
    if given is None and kind in _SIZED:
        settings = {name: value for name, value in description.items() if name != "kind"}
        return from_plain(_SIZED[kind], settings, "net")
    if given is None and kind == "cut":
        names = ", ".join(str(block["name"]) for block in description["blocks"])
        raise StorageError(
            f"The model's network was cut from a module (blocks: {names}), whose code is not saved. Pass "
            f"net=lasem.nets.cut(module, ...) as it was then, in Python: lasem.GrowingModel(folder, net=...) or "
            f"lasem.Learner.load(folder, net=...); the command line cannot know the module."
        )
    if given is None and kind not in _STORED:
        known = ", ".join((*_SIZED, "cut", *_STORED))
        raise ConfigError(f"Expected a network of one of the kinds {known}; got '{kind}'.")
    if given is None:
        return StoredNet(description, lambda described: _STORED[kind](described, tensors()))
    check_described(description, given)
    return given
