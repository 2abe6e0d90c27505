"""Networks by name, by the size of images, or by the description in a saved model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lasem.errors import ConfigError, StorageError
from lasem.nets.abstract import AbstractNet
from lasem.nets.net import ImageShape, Net, cifar, digits, office_home, stl10
from lasem.nets.pretrained import timm_from_description
from lasem.nets.resnet import ResNet, resnet
from lasem.settings import flat, from_plain

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
    """Build the network that the paper's choices suggest: digits to 16 pixels, CIFAR to 64, STL-10 to 112."""
    side = max(image_shape[1:])
    return (digits if side <= 16 else cifar if side <= 64 else stl10 if side <= 112 else office_home)(image_shape)


def rebuild(description: Mapping[str, Any], given: AbstractNet | None = None) -> AbstractNet:
    """Build the network of a description (``AbstractNet.description``).

    Args:
        description: what was saved. A plain network has no ``kind``.
        given: the network, if the caller has it; a module that was cut must be given, because code is never saved.

    Raises:
        StorageError: if ``given`` is another network, or is needed.
        ConfigError: if the description is damaged.
    """
    kind = description.get("kind", "plain")
    if given is None and kind in ("plain", "resnet"):
        settings = {name: value for name, value in description.items() if name != "kind"}
        return from_plain(Net if kind == "plain" else ResNet, settings, "net")
    if given is None and kind == "cut":
        names = ", ".join(str(block["name"]) for block in description["blocks"])
        raise StorageError(
            f"The model's network was cut from a module (blocks: {names}), whose code is not saved. Pass "
            f"net=lasem.nets.cut(module, ...) as it was then, in Python: lasem.GrowingModel(folder, net=...) or "
            f"lasem.Learner.load(folder, net=...); the command line cannot know the module."
        )
    if given is None and kind != "timm":
        raise ConfigError(f"Expected a plain, resnet, cut or timm network; got '{kind}'.")
    net = timm_from_description(description) if given is None else given
    stored, found = flat(description), flat(net.description())
    differing = sorted(name for name in stored.keys() | found.keys() if stored.get(name) != found.get(name))
    if differing:
        first = "; ".join(f"{n}: {stored.get(n, 'none')}, got {found.get(n, 'none')}" for n in differing[:3])
        raise StorageError(f"The model was saved with another network ({first}). Pass net=... as it was then.")
    return net
