"""The parts of an experiment's settings: classes by lasem's names, and a user's own ones by module and name.

A run's file may name a class to import, as a script would; the folder of a model never does.

A method's name is that of a baseline, or a shorthand for a search and a sharing mechanism together. ``lasem`` decides
nothing: sharing and search are as set. ``all``, ``none``, ``alternating``, ``top-K`` and ``bottom-K`` fix the
configuration, the name of a search lets it choose; ``-hps``, ``-tf``, ``-dfcnn`` or ``-low-rank`` after any of these
chooses the mechanism. A shorthand is taken apart when settings are read, so that what a run stores says all of it.
"""

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
from lasem.learner.model_folder import KNOWN
from lasem.methods import METHODS, AbstractMethod, AbstractProtection, Freeze
from lasem.nets import NETS, AbstractNet, ImageShape
from lasem.nets.net import AUTO, LIBRARIES, Choice, NetChoice
from lasem.search import EM, SEARCHES, AbstractSelection, Fixed
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
_PAPER_STREAMS = {
    "planted": "paper.planted_stream.PlantedReader",
    "office-caltech": "paper.office_caltech.OfficeCaltechReader",
}
"""Streams outside the package, from the folder ``paper`` of lasem's repository, that have a name too."""

PARTS: dict[str, Mapping[str, type[Any]]] = {
    "stream": READERS,
    "net": dict.fromkeys((AUTO, *NETS), NetChoice),
    **KNOWN,
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

LASEM = "lasem"
METHOD_PARTS = ("sharing", "search", "protect")
"""The parts of a run's settings that make LASEM and its relatives; a baseline has none of them."""
_RELATIVES = {
    "er": ("learn from images of earlier tasks again", "replay rehearsal der der++ gem agem icarl gdumb mir hal"),
    "ewc": ("hold back what would change earlier answers", "mas rwalk oewc gpm"),
    "hat": ("give each task a part of one network", "piggyback supsup cpg"),
    "one-network": ("train one network on task after task", "finetune finetuning naive sgd sequential"),
}
"""Well-known methods of others, and lasem's of the same kind."""


def find_class(part: str, name: str) -> Any:
    """Return the class that a name means: lasem's own one, or a user's, such as ``mine.MovingPrior``.

    A user's module is imported from the current folder or the import path. For ``net``, it has a function of the image
    shape that returns a network. ConfigError if there is no such class, or it is of another kind.
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
    """Return the name, class and settings that an entry of a file chooses; ConfigError if there is no such name."""
    settings = with_name(part, entry)
    if part == "training":
        return part, TrainingConfig, settings
    name = read_value(settings.pop("name", DEFAULT_NAMES.get(part)), str, f"{part}.name")
    return name, find_class(part, name), settings


def build_part(part: str, entry: Any, start: Mapping[str, Any]) -> Any:
    """Build a part from an entry of a file; values of ``start`` that the class has are below the entry's."""
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
    """Return the name and settings of a part, a user's class with its module; ConfigError as of ``to_plain``."""
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
    """Build the network for images of (channels, height, width); ConfigError if a function returns something else."""
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


def method_names() -> tuple[str, ...]:
    """Every name there is, without suffixes."""
    searches = (name for name in SEARCHES if name not in (EM.name, Fixed.name))
    return (LASEM, "all", "none", "alternating", "top-K", "bottom-K", *searches, *METHODS)


def parts_of(name: str) -> dict[str, dict[str, Any]]:
    """Return what a method's name decides: for each part that it speaks of, the part's name and settings.

    ``darts-tf`` gives sharing and search, ``all`` the search alone, ``lasem`` nothing, ``ewc`` the part ``method``.
    ConfigError, which names the nearest method, if there is none.
    """
    if name in METHODS or "." in name:
        return {"method": {"name": name}}
    stem = name
    parts: dict[str, dict[str, Any]] = {}
    for sharing in SHARINGS:
        if name.endswith(f"-{sharing}"):
            stem = name.removesuffix(f"-{sharing}")
            parts["sharing"] = {"name": sharing}
    if re.fullmatch(r"all|none|alternating|(top|bottom)-\d+", stem):
        parts["search"] = {"name": Fixed.name, "configuration": stem}
    elif stem in SEARCHES and stem not in (EM.name, Fixed.name):
        parts["search"] = {"name": stem}
        if SEARCHES[stem].reuses:
            parts["protect"] = {"name": Freeze.name}
    elif stem != LASEM:
        known = method_names()
        word = re.sub("[^a-z+]", "", name.lower())
        kind = next((kind for kind, (_, names) in _RELATIVES.items() if word in names.split()), None)
        hint = nearest(name, known)
        if kind:
            hint = f" lasem does not have it; of methods that {_RELATIVES[kind][0]}, it has '{kind}'."
        elif stem == EM.name:
            hint = " The search that LASEM makes is the method 'lasem'."
        raise ConfigError(
            f"There is no method '{name}' (there are: {', '.join(known)}; those before {next(iter(METHODS))} may end "
            f"in -{', -'.join(SHARINGS)}).{hint}"
        )
    return parts


def resolve(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with what a method's name stands for in its place: ``method`` is left for a baseline only.

    ConfigError if the method is unknown, or contradicts what is said of sharing or search.
    """
    rest = {part: value for part, value in entry.items() if part != "method"}
    if entry.get("method") is None:
        return rest
    settings = with_name("method", entry["method"])
    name = read_value(settings.pop("name", LASEM), str, "method.name")
    decided = parts_of(name)
    if "method" in decided:
        for part in METHOD_PARTS:
            if rest.get(part) is not None:
                raise ConfigError(
                    f"Method '{name}' does not use {part}; got {part} {_words(rest[part])}. Leave {part} out, or "
                    f"choose another method (--method lasem does)."
                )
        return {**rest, "method": {"name": name, **settings}}
    if settings:
        raise ConfigError(
            f"Method '{name}' has no settings of its own, its sharing and search have; got {next(iter(settings))}."
            f"{owners('method', next(iter(settings)))}"
        )
    return rest | {part: _merged(name, part, own, rest.get(part)) for part, own in decided.items()}


def _merged(method: str, part: str, own: dict[str, Any], entry: Any) -> dict[str, Any]:
    given = with_name(part, entry)
    for key, value in own.items():
        if key in given and str(given[key]) != str(value):
            setting = part if key == "name" else f"{part}.{key}"
            raise ConfigError(
                f"Method '{method}' means {setting} {value}; got {setting} {given[key]} as well. Leave one of the two "
                f"out."
            )
    return {**own, **given}


def _words(entry: Any) -> str:
    settings = dict(entry) if isinstance(entry, Mapping) else {"name": entry}
    return f"'{settings['name']}'" if "name" in settings else ", ".join(f"{k} = {v}" for k, v in settings.items())
