"""The paper's networks (Lee, Behpour, Eaton, ICML 2021), for images of any size and number of channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from lasem.errors import check_choice
from lasem.nets.abstract import AbstractNet
from lasem.nets.net import Net
from lasem.nets.resnet import ResNet

ImageShape = tuple[int, int, int]


def cifar(image_shape: ImageShape = (3, 32, 32), *, depth: Literal[4, 6, 8] = 4) -> Net:
    """The CIFAR-100 network with 4, 6 or 8 convolutions of 3x3; each second one is pooled."""
    check_choice("depth", str(depth), ("4", "6", "8"))
    return Net(
        image_shape=image_shape,
        channels=(32, 32, 64, 64, 128, 128, 128, 128)[:depth],
        kernels=(3,) * depth,
        pools=(1, 2) * (depth // 2),
        hidden=(64,),
    )


def office_home(image_shape: ImageShape = (3, 128, 128)) -> Net:
    """The Office-Home network: 4 convolutions of 11x11, 5x5, 3x3 and 3x3."""
    return Net(
        image_shape=image_shape,
        channels=(64, 256, 256, 256),
        kernels=(11, 5, 3, 3),
        pools=(3, 3, 2, 2),
        hidden=(256, 64),
    )


def stl10(image_shape: ImageShape = (3, 96, 96)) -> Net:
    """The STL-10 network: 6 convolutions of 3x3; each second one is pooled by 3."""
    return Net(
        image_shape=image_shape,
        channels=(32, 32, 64, 64, 128, 128),
        kernels=(3,) * 6,
        pools=(1, 3) * 3,
        hidden=(128, 16),
    )


def digits(image_shape: ImageShape = (1, 8, 8)) -> Net:
    """A small network for the embedded digits: 4 convolutions of 3x3; each second one is pooled."""
    return Net(image_shape=image_shape, channels=(16, 16, 32, 32), kernels=(3,) * 4, pools=(1, 2, 1, 2), hidden=(32,))


def resnet(image_shape: ImageShape = (3, 32, 32)) -> ResNet:
    """The residual network with 17 convolutions."""
    return ResNet(image_shape=image_shape)


NETS: dict[str, Callable[[ImageShape], AbstractNet]] = {
    "cifar": cifar,
    "cifar-6": lambda shape: cifar(shape, depth=6),
    "cifar-8": lambda shape: cifar(shape, depth=8),
    "office-home": office_home,
    "stl-10": stl10,
    "digits": digits,
    "resnet": resnet,
}
"""The networks that a name on the command line can mean."""


def for_images(image_shape: ImageShape) -> Net:
    """The network that the paper's choices suggest for a size: digits to 16 pixels, CIFAR to 64, STL-10 to 112."""
    side = max(image_shape[1:])
    return (digits if side <= 16 else cifar if side <= 64 else stl10 if side <= 112 else office_home)(image_shape)
