"""A person's own classes among an experiment's settings: what is refused, and how the others are written down."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from lasem.data import AbstractReader, TaskStream
from lasem.errors import ConfigError
from lasem.experiments.net_choice import NetChoice
from lasem.methods import AbstractMethod, AbstractProtection
from lasem.nets import AbstractNet, ImageShape
from lasem.search import AbstractSelection
from lasem.settings import check_plain, full_name, to_plain
from lasem.sharing import AbstractSharing
from lasem.training import TrainingConfig

AnyNet = NetChoice | AbstractNet | Callable[[ImageShape], AbstractNet]

_BASES: dict[str, type[Any]] = {
    "stream": AbstractReader,
    "sharing": AbstractSharing,
    "search": AbstractSelection,
    "protect": AbstractProtection,
    "method": AbstractMethod,
    "training": TrainingConfig,
}
_LONGEST_NAME = 60


def check_part(part: str, value: Any) -> None:
    """Raise ConfigError unless a part of the settings is what it must be, and can be written down."""
    if part == "net":
        _check_net(value)
        return
    base = _BASES[part]
    if not isinstance(value, base):
        raise ConfigError(f"{part} must be an object of {base.__name__}; got {_told(value)}.{_hint(part, value)}")
    if part == "method" and not isinstance(getattr(value, "name", None), str):
        raise ConfigError(f"{type(value).__name__} needs a name for files: name: ClassVar[str] = 'mine'; it has none.")
    check_plain(value)


def is_own(value: Any, known: Mapping[str, type[Any]]) -> bool:
    """Whether a part is of a class that no file can name, be its name one of lasem's or not.

    Args:
        value: the part.
        known: the classes of that part that have a name.
    """
    return known.get(_name(value)) is not type(value)


def part_to_plain(part: str, value: Any, known: Mapping[str, type[Any]]) -> dict[str, Any]:
    """Name and settings of a part; an own class is called by its module too, so that it is taken for no other one.

    Raises:
        ConfigError: if a field holds what no file of settings can.
    """
    if part == "training":
        return to_plain(value)
    if not is_own(value, known):
        return {"name": value.name, **to_plain(value)}
    if isinstance(value, AbstractNet):
        return {"name": full_name(type(value)), "description": value.description()}
    if part == "net":
        return {"name": full_name(value if hasattr(value, "__qualname__") else type(value))}
    plain = to_plain(value)
    called = {"called": plain.pop("name")} if "name" in plain else {}
    return {"name": full_name(type(value)), **called, **plain}


def folder_name(value: Any) -> str:
    """What a part is called in a folder's name."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", _name(value)).strip("-.")[:_LONGEST_NAME] or "own"


def _name(value: Any) -> str:
    name = getattr(value, "name", None)
    return name if isinstance(name, str) else type(value).__name__


def build_net(net: AnyNet, image_shape: ImageShape) -> AbstractNet:
    """The network for images of (channels, height, width).

    Raises:
        ConfigError: if a function gives something else, or the choice does not fit the images.
    """
    if isinstance(net, AbstractNet):
        return net
    built = net.build(image_shape) if isinstance(net, NetChoice) else net(image_shape)
    if not isinstance(built, AbstractNet):
        raise ConfigError(
            f"The function given as net must give an AbstractNet; got {_told(built)}.{_hint('net', built)}"
        )
    return built


def _check_net(net: Any) -> None:
    if isinstance(net, NetChoice | AbstractNet):
        return
    if not callable(net) or isinstance(net, nn.Module | type):
        raise ConfigError(
            f"net must be an AbstractNet, a NetChoice, or a function of the image shape (channels, height, width) that "
            f"gives a network; got {_told(net)}.{_hint('net', net)}"
        )


def _hint(part: str, value: Any) -> str:
    """What to do instead, where that can be guessed."""
    if isinstance(value, nn.Module):
        return " Cut it into layers: lasem.nets.cut(module, image_shape=...)."
    if isinstance(value, type):
        return f" Make an object of it: {value.__name__}(...)."
    if isinstance(value, str):
        return f" A name is for files and the command line: ExperimentConfig.from_plain({{'{part}': '{value}'}})."
    if isinstance(value, TaskStream):
        return " Give the reader that opens it, or a TensorReader for tensors."
    if part == "stream":
        return " For tensors there is TensorReader(images=..., labels=...)."
    return ""


def _told(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
