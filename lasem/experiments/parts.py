"""The parts of an experiment's settings: classes by lasem's names, and a user's own ones by module and name.

A run's file may name a class to import, as a script would; the folder of a model never does.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass, replace
from typing import Any

from torch import nn

from lasem.data import (
    BENCHMARKS,
    AbstractReader,
    CtrlReader,
    DigitsReader,
    FolderReader,
    ParquetReader,
    TaskStream,
    TextReader,
)
from lasem.errors import ConfigError, nearest
from lasem.methods import METHODS, PROTECTIONS, AbstractMethod, AbstractProtection
from lasem.nets import NETS, AbstractNet, ImageShape
from lasem.nets.choice import AUTO, LIBRARIES, Choice, NetChoice
from lasem.search import SEARCHES, AbstractSelection
from lasem.settings import (
    check_choice,
    check_plain,
    from_plain,
    full_name,
    read_value,
    settings_of,
    to_named,
    to_plain,
)
from lasem.sharing import SHARINGS, AbstractSharing
from lasem.training import TrainingConfig

AnyNet = Choice | AbstractNet | Callable[[ImageShape], AbstractNet]

_READERS: tuple[type[Any], ...] = (DigitsReader, ParquetReader, FolderReader, TextReader, *BENCHMARKS, CtrlReader)
READERS: dict[str, type[Any]] = {cls.name: cls for cls in _READERS}
"""The streams that have a name; in Python, any AbstractReader can be passed."""
_PAPER_STREAMS = {"planted": "paper.planted_stream.PlantedReader"}
"""Streams outside the package, from the folder ``paper`` of lasem's repository, that have a name too."""

PARTS: dict[str, dict[str, type[Any]]] = {
    "stream": READERS,
    "net": dict.fromkeys((AUTO, *NETS), NetChoice),
    "sharing": dict(SHARINGS),
    "search": dict(SEARCHES),
    "protect": dict(PROTECTIONS),
    "method": dict(METHODS),
}
"""The names of lasem's own classes."""

DEFAULT_NAMES = {"stream": "digits", "net": AUTO, "sharing": "hps", "search": "em", "protect": "none"}

_BASES: dict[str, type[Any]] = {
    "stream": AbstractReader,
    "sharing": AbstractSharing,
    "search": AbstractSelection,
    "protect": AbstractProtection,
    "method": AbstractMethod,
    "training": TrainingConfig,
}


def find_class(part: str, name: str) -> Any:
    """Return the class that a name means: lasem's own one, or a user's, such as ``mine.MovingPrior``.

    A user's module is imported from the current folder or the import path. For ``net``, it has a function of the image
    shape that returns a network.

    Raises:
        ConfigError: if there is no such class (the nearest name is given), or it is of another kind.
    """
    library = next((cls for prefix, cls in LIBRARIES.items() if part == "net" and name.startswith(prefix)), None)
    if library is not None:
        return library
    module, _, attribute = (_PAPER_STREAMS.get(name, name) if part == "stream" else name).rpartition(".")
    if not module or name in PARTS[part]:
        check_choice(part, name, _named(part))
        return PARTS[part][name]
    if module == "__main__":
        raise ConfigError(f"{part} '{name}' is of a script, which is not imported. Move it to a module of its own.")
    if name not in _PAPER_STREAMS and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last: what is called random.py there takes no module's place
    try:
        found = importlib.import_module(module)
    except Exception as error:
        raise ConfigError(
            f"Expected a module {module} for {part} '{name}', in the current folder or in PYTHONPATH; importing it "
            f"gave {type(error).__name__}: {error}."
        ) from error
    if not hasattr(found, attribute):
        place = getattr(found, "__file__", None) or "part of Python"
        raise ConfigError(f"There is no {attribute} in module {module} ({place}).{nearest(attribute, dir(found))}")
    value = getattr(found, attribute)
    if part == "net":
        _check_net(value)
    elif not isinstance(value, type) or not issubclass(value, _BASES[part]):
        raise ConfigError(f"{part} must be a subclass of {_BASES[part].__name__}; got {name}, {_describe(value)}.")
    elif inspect.isabstract(value) or not is_dataclass(value):
        lacking = getattr(value, "__abstractmethods__", ()) or ["fields: put @dataclass(frozen=True) above the class"]
        raise ConfigError(f"{part} '{name}' is not complete. It has no {', '.join(sorted(lacking))}.")
    return value


def with_name(part: str, entry: Any) -> dict[str, Any]:
    """Return what a file says of a part as a mapping; a text alone is the part's name; ConfigError if it is neither."""
    if entry is None:
        return {}
    if isinstance(entry, str) and part != "training":
        return {"name": entry}
    if not isinstance(entry, Mapping):
        what = "'setting: value' lines" if part == "training" else "a name, or 'setting: value' lines"
        raise ConfigError(f"{part} must hold {what}; got {entry!r}.")
    return dict(entry)


def chosen(part: str, entry: Any) -> tuple[str, Any, dict[str, Any]]:
    """Return the name, class and settings that an entry of a file chooses: a mapping with ``name``, or the name alone.

    Raises:
        ConfigError: if there is no such name, or the entry is something else.
    """
    settings = with_name(part, entry)
    if part == "training":
        return part, TrainingConfig, settings
    name = read_value(settings.pop("name", DEFAULT_NAMES.get(part)), str, f"{part}.name")
    return name, find_class(part, name), settings


def build_part(part: str, entry: Any, start: Mapping[str, Any]) -> Any:
    """Build a part from an entry of a file; values of ``start`` that the class has are below the entry's.

    Raises:
        ConfigError: if there is no such name or setting, or a value is not what it must be.
    """
    name, cls, settings = chosen(part, entry)
    if not isinstance(cls, type):  # a function that makes a network
        if settings:
            raise ConfigError(f"net '{name}' is a function and has no settings; got {next(iter(settings))}.")
        return cls
    known, whose = settings_of(cls), part if part == "training" else f"{part} '{name}'"
    for setting in settings:
        if setting not in known and (hint := owners(part, setting)):
            raise ConfigError(f"{whose} has no setting '{setting}'.{hint}")
    below = {key: value for key, value in start.items() if key in known}
    built: Any = from_plain(cls, {**below, **settings}, part, whose)
    return replace(built, name=name) if isinstance(built, Choice) else built


def owners(part: str, setting: str) -> str:
    """Return ``" It is a setting of ..."``, with lasem's classes that have a setting; an empty string if none has."""
    names = [name for name, cls in _named(part).items() if setting in settings_of(cls)]
    return f" It is a setting of {part} {', '.join(names)}." if names else ""


def _named(part: str) -> dict[str, type[Any]]:
    """The classes that have a name, and those of networks of other libraries."""
    others = {f"{library}NAME": cls for library, cls in LIBRARIES.items()} if part == "net" else {}
    return {**PARTS.get(part, {}), **others}


def part_to_plain(part: str, value: Any) -> dict[str, Any]:
    """Return the name and settings of a part; a user's class has its module in its name.

    Raises:
        ConfigError: if a field holds what no file of settings can.
    """
    if part == "training":
        return to_plain(value)
    if isinstance(value, AbstractNet):
        return {"name": full_name(type(value)), "description": value.description()}
    if isinstance(value, Choice):
        return to_plain(value)
    if part == "net":
        return {"name": full_name(value if hasattr(value, "__qualname__") else type(value))}
    plain = to_named(value, PARTS[part], importable=True)
    short = {full: short for short, full in _PAPER_STREAMS.items()}
    return plain | {"name": short.get(plain["name"], plain["name"])}


def is_readable(part: str, value: Any) -> bool:
    """Return whether a file brings a part back: not a network, a tensor, or a class of a script or a function."""
    plain = part_to_plain(part, value)
    if part == "training" or plain["name"] in PARTS[part] or isinstance(value, Choice):
        return True
    try:
        return bool(build_part(part, plain, {}) == value)
    except (ConfigError, RuntimeError, ValueError):  # of tensors, which are neither equal nor not
        return False


def check_part(part: str, value: Any) -> None:
    """Raise ConfigError unless a part of the settings is what it must be, and can be written down."""
    if part == "net":
        _check_net(value)
        return
    base = _BASES[part]
    if not isinstance(value, base):
        raise ConfigError(f"{part} must be an object of {base.__name__}; got {_describe(value)}.{_hint(part, value)}")
    if part == "method" and not isinstance(getattr(value, "name", None), str):
        raise ConfigError(f"{type(value).__name__} needs a name for files: name: ClassVar[str] = 'mine'; it has none.")
    check_plain(value)


def folder_name(value: Any) -> str:
    """Return what a part is called in a folder's name."""
    name = getattr(value, "name", None)
    shown = name if isinstance(name, str) else type(value).__name__
    return re.sub(r"[^A-Za-z0-9._]+", "-", shown).strip("-.")[:60] or "own"


def build_net(net: AnyNet, image_shape: ImageShape) -> AbstractNet:
    """Build the network for images of (channels, height, width).

    Raises:
        ConfigError: if a function returns something else, or the choice does not fit the images.
    """
    if isinstance(net, AbstractNet):
        return net
    built = net(image_shape)
    if not isinstance(built, AbstractNet):
        raise ConfigError(
            f"The function given as net must give an AbstractNet; got {_describe(built)}.{_hint('net', built)}"
        )
    return built


def _check_net(net: Any) -> None:
    if isinstance(net, Choice | AbstractNet):
        return
    if not callable(net) or isinstance(net, nn.Module | type):
        raise ConfigError(
            f"net must be an AbstractNet, a NetChoice, or a function of the image shape (channels, height, width) that "
            f"gives a network; got {_describe(net)}.{_hint('net', net)}"
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
    return " For tensors there is TensorReader(images=..., labels=...)." if part == "stream" else ""


def _describe(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
