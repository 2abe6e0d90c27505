"""Networks from what a saved model says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lasem.errors import ConfigError, StorageError
from lasem.nets.abstract import AbstractNet
from lasem.nets.from_timm import from_timm
from lasem.nets.net import Net
from lasem.nets.resnet import ResNet
from lasem.settings import flat, from_plain


def rebuild(description: Mapping[str, Any], given: AbstractNet | None = None) -> AbstractNet:
    """The network that a description (``AbstractNet.description``) is of.

    Args:
        description: what was saved. A plain network has no ``kind``.
        given: the network, if whoever loads the model has it; a module that was cut must be given, for code is never
            saved.

    Raises:
        StorageError: if ``given`` is another network, or is needed.
        ConfigError: if the description is damaged.
    """
    kind = description.get("kind", "plain")
    if given is not None:
        _check_same(description, given)
        return given
    if kind == "timm":
        return _from_timm(description)
    settings = {name: value for name, value in description.items() if name != "kind"}
    if kind == "plain":
        return from_plain(Net, settings, "net")
    if kind == "cut":
        names = ", ".join(str(block["name"]) for block in description["blocks"])
        raise StorageError(
            f"The model's network was cut from a module (blocks: {names}), whose code is not saved. Pass "
            f"net=lasem.nets.cut(module, ...) as it was then, in Python: lasem.GrowingModel(folder, net=...) or "
            f"lasem.Learner.load(folder, net=...); the command line cannot know the module."
        )
    if kind == "resnet":
        return from_plain(ResNet, settings, "net")
    raise ConfigError(f"Expected a plain, resnet, cut or timm network; got '{kind}'.")


def _from_timm(description: Mapping[str, Any]) -> AbstractNet:
    head, shape = description["head"], [int(size) for size in description["image_shape"]]
    try:
        net = from_timm(
            description["name"],
            pretrained=description["pretrained"] is not None,
            image_shape=(shape[0], shape[1], shape[2]),
            blocks=description["cut"],
            rank=description.get("rank"),  # models saved by older versions have none
            hidden=head["hidden"],
            dropout=head["dropout"],
        )
    except OSError as error:  # what timm raises if it can neither find nor download weights
        raise StorageError(
            f"The model's network is timm's '{description['name']}' with pretrained weights, which are not on this "
            f"machine and cannot be downloaded ({error})."
        ) from error
    _check_same(description, net)
    return net


def _check_same(description: Mapping[str, Any], given: AbstractNet) -> None:
    stored, found = flat(description), flat(given.description())
    differing = sorted(name for name in stored.keys() | found.keys() if stored.get(name) != found.get(name))
    if differing:
        told = "; ".join(f"{name}: {stored.get(name, 'none')}, got {found.get(name, 'none')}" for name in differing[:3])
        raise StorageError(f"The model was saved with another network ({told}). Pass net=... as it was then.")
