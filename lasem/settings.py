"""Settings: frozen dataclasses, their ranges, and their plain values in JSON, YAML and on a command line.

A field's annotation says what it may hold: ``Literal`` the choices, ``Annotated[float, Range(above=0)]`` the range.
Reading makes values of the annotated types only. (Libraries that read dataclasses were tried. Their messages run over
several lines and name no nearest choice; replacing them took as much code as this page.)
"""

from __future__ import annotations

import hashlib
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from inspect import get_annotations
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, TypeVar, Union, final, get_args, get_origin, get_type_hints

import numpy as np

from lasem.errors import ConfigError, check_choice, check_range, nearest

_S = TypeVar("_S")
_HINTS: dict[type[Any], dict[str, Any]] = {}


@final
@dataclass(frozen=True, kw_only=True)
class Range:
    """The bounds of a number, for an annotation; always finite."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def check(self, setting: str, value: float) -> None:
        """Raise ConfigError unless a value is inside."""
        check_range(setting, value, least=self.least, above=self.above, most=self.most, below=self.below)


class Settings:
    """A base of settings dataclasses that checks each field against its annotation."""

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ConfigError: if a value is out of its range, or none of the choices.
        """
        for name, hint in settings_of(type(self)).items():
            _check(f"{type(self).__name__}.{name}", getattr(self, name), hint)


def _check(where: str, value: Any, annotation: Any) -> None:
    if _without_metadata(annotation) is int and (isinstance(value, bool) or not isinstance(value, int)):
        raise ConfigError(f"{where} must be an integer; got {value!r}.")
    for metadata in getattr(annotation, "__metadata__", ()):
        if isinstance(metadata, Range):
            metadata.check(where, value)
    base = _without_metadata(annotation)
    if get_origin(base) is tuple:
        for member in value:
            _check(where, member, get_args(base)[0])
    elif get_origin(base) in (Union, types.UnionType) and value is not None:
        (only,) = _not_none(base)[:1]
        _check(where, value, only)
    elif get_origin(base) is Literal:
        check_choice(where, str(value), [str(choice) for choice in get_args(base)])


def _without_metadata(annotation: Any) -> Any:
    return annotation.__origin__ if get_origin(annotation) is Annotated else annotation


def _not_none(union: Any) -> list[Any]:
    return [a for a in get_args(union) if a is not type(None)]


def to_plain(settings: Any) -> dict[str, Any]:
    """The fields of a settings dataclass: tuples as lists, paths as text, of tensors type, shape and checksum.

    Raises:
        ConfigError: if it is no dataclass, or a field holds what no file of settings can.
    """
    return _fields(settings, _told)


def check_plain(settings: Any) -> None:
    """Raise the errors of ``to_plain``, and make no checksums: large tensors take their time."""
    _fields(settings, lambda numbers: "")


def full_name(thing: Any) -> str:
    """Module and name of a class or function: what a file calls one that has no name of lasem's."""
    return f"{thing.__module__}.{thing.__qualname__}"


def to_named(value: Any, known: Mapping[str, type[Any]]) -> dict[str, Any]:
    """Name and settings of an object; its full name, if another class has that name among those that are known."""
    name = getattr(value, "name", None)
    taken = isinstance(name, str) and known.get(name, type(value)) is not type(value)
    called = {"name": full_name(type(value)) if taken else name}
    return called | to_plain(value) | called


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested plain values by one name each, such as ``training.epochs``; ``name`` is what all of them are called."""
    if not isinstance(value, Mapping):
        return {name: value}
    parts = {f"{name}.{key}" if name else str(key): part for key, part in value.items()}
    return {key: entry for path, part in parts.items() for key, entry in flat(part, path).items()}


def type_hints(cls: type[Any]) -> dict[str, Any]:
    """What each field of a class may be; looked up once, for a grid reads settings hundreds of times."""
    if cls not in _HINTS:
        _HINTS[cls] = get_type_hints(cls, include_extras=True)
    return _HINTS[cls]


def settings_of(cls: type[Any]) -> dict[str, Any]:
    """The settings of a class and what each may be; its name is not one of them."""
    hints = type_hints(cls)
    return {f.name: hints[f.name] for f in fields(cls) if f.init and f.name != "name"}


def first_missing(cls: type[Any], entry: Mapping[str, Any]) -> str | None:
    """The first setting of a class that has no default and is not in ``entry``; None if there is none."""
    known = settings_of(cls)
    required = (f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING)
    return next((name for name in required if name in known and name not in entry), None)


def from_plain(cls: type[_S], entry: Mapping[str, Any], where: str, whose: str | None = None) -> _S:
    """Build a settings dataclass from plain values; fields that are not given keep their defaults.

    Args:
        cls: a frozen dataclass whose fields are numbers, text, choices and tuples of them.
        entry: values by field name, as JSON or YAML have them or as text.
        where: what a message puts before a setting's name, for instance ``training``.
        whose: what a message calls the settings together, if not ``where``.

    Raises:
        ConfigError: if a name is unknown (the nearest known one is named) or missing, or a value has another type.
    """
    known = settings_of(cls)
    entry = {name: value for name, value in entry.items() if name not in getattr(cls, "retired", ())}
    for name in entry:
        if name not in known:
            raise ConfigError(
                f"{whose or where} has no setting '{name}' (there are: {', '.join(known) or 'none'})."
                f"{nearest(str(name), known)}"
            )
    values = {name: read_value(value, known[name], f"{where}.{name}") for name, value in entry.items()}
    missing = first_missing(cls, values)
    if missing is not None:
        raise ConfigError(f"{whose or where} needs a value for '{missing}'; none was given.")
    try:
        return cls(**values)
    except ConfigError as error:  # a person wrote "training.epochs", not "TrainingConfig.epochs"
        raise ConfigError(str(error).replace(f"{cls.__name__}.", f"{where}.")) from error


def read_value(value: Any, annotation: Any, where: str) -> Any:
    """Read a value as a setting's annotation says.

    Args:
        value: a plain value, or text: ``3``, ``1e-3``, ``true``, ``none``, ``0,1,2``.
        annotation: int, float, bool, str, a Literal, a tuple of any length of one of these, or one of these or None.
        where: what a message calls the setting, for instance ``training.epochs``.

    Raises:
        ConfigError: if the value is none of the annotation's.
    """
    if get_origin(annotation) is Annotated:
        read = read_value(value, annotation.__origin__, where)
        _check(where, read, annotation)
        return read
    if get_origin(annotation) in (Union, types.UnionType):
        if value is None or (isinstance(value, str) and value.lower() in ("none", "null")):
            return None
        return read_value(value, _not_none(annotation)[0], where)
    if get_origin(annotation) is Literal:
        return _choice(value, get_args(annotation), where)
    if get_origin(annotation) is tuple:
        return tuple(read_value(v, get_args(annotation)[0], where) for v in _members(value, where))
    return _READERS[annotation](value, where)


def kind(annotation: Any) -> str:
    """What a help text writes in the value's place: N, NUMBER, {a,b}, ..."""
    if get_origin(annotation) is Annotated:
        return kind(annotation.__origin__)
    if get_origin(annotation) in (Union, types.UnionType):
        return kind(*_not_none(annotation))
    if get_origin(annotation) is Literal:
        return "{" + ",".join(map(str, get_args(annotation))) + "}"
    if get_origin(annotation) is tuple:
        one = kind(get_args(annotation)[0])
        return f"{one},{one},..."
    return {int: "N", float: "NUMBER", bool: "{true,false}", Path: "PATH"}.get(annotation, "NAME")


def _fields(settings: Any, told: Callable[[Any], str]) -> dict[str, Any]:
    cls = type(settings)
    if not is_dataclass(cls) or ("__dataclass_fields__" not in vars(cls) and _has_more(cls)):
        raise ConfigError(
            f"Settings are kept by their fields, and {cls.__name__} is no dataclass. Make it a frozen dataclass: put "
            f"@dataclass(frozen=True) above the class, and a field for each setting in place of __init__."
        )
    return {f.name: _plain(getattr(settings, f.name), f"{cls.__name__}.{f.name}", told) for f in fields(settings)}


def _has_more(cls: type[Any]) -> bool:
    """Whether a class whose parents are dataclasses has settings that they do not know."""
    fields_added = [name for name, hint in get_annotations(cls).items() if "ClassVar" not in str(hint)]
    return bool(fields_added) or "__init__" in vars(cls)


def _plain(value: Any, where: str, told: Callable[[Any], str]) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)
    if isinstance(value, str):
        return str.__str__(value)  # of a choice that is an Enum the text alone
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, tuple | list):
        return [_plain(v, where, told) for v in value]
    if isinstance(value, Mapping) and all(isinstance(key, str | int) for key in value):
        return {key: _plain(v, f"{where}[{key!r}]", told) for key, v in value.items()}
    if hasattr(value, "dtype") and hasattr(value, "shape") and value.dtype != object:
        return told(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {"class": full_name(type(value)), **_fields(value, told)}
    raise ConfigError(
        f"{where} is of type {type(value).__name__}, which no file of settings can hold. Make it of text, numbers, "
        f"true or false, paths, tensors, dataclasses of such fields, or tuples and dictionaries of these."
    )


def _told(numbers: Any) -> str:
    """A tensor or array, which no file of settings can hold, so that another one is seen to be another."""
    array = np.ascontiguousarray(numbers.detach().cpu() if hasattr(numbers, "detach") else numbers)
    return f"{array.dtype} {array.shape}, sha256 {hashlib.sha256(array.data).hexdigest()}"


def _choice(value: Any, choices: tuple[Any, ...], where: str) -> Any:
    check_choice(where, str(value), [str(c) for c in choices])
    return next(c for c in choices if str(c) == str(value))


def _members(value: Any, where: str) -> list[Any]:
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")] if value.strip() else []
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [value]
    raise ConfigError(f"{where} must be a list such as 0,1,2; got {value!r}.")


def _read_int(value: Any, where: str) -> int:
    try:
        if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
            return int(value)
    except ValueError:
        pass
    raise ConfigError(f"{where} must be a whole number; got {value!r}.")


def _read_float(value: Any, where: str) -> float:
    try:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise ConfigError(f"{where} must be a number; got {value!r}.")


def _read_bool(value: Any, where: str) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _TRUTH:
        return _TRUTH[value.lower()]
    raise ConfigError(f"{where} must be true or false; got {value!r}.")


def _read_str(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    raise ConfigError(f"{where} must be text; got {value!r}. Put it into quotes.")


_TRUTH = {"true": True, "yes": True, "false": False, "no": False}
_READERS: dict[Any, Callable[[Any, str], Any]] = {
    int: _read_int,
    float: _read_float,
    bool: _read_bool,
    str: _read_str,
    Path: lambda value, where: Path(_read_str(value, where)),
}
