"""One setting's value, from the text of a command line or the plain value of a YAML file."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, Literal, Union, get_args, get_origin

from lasem.errors import ConfigError, check_choice

_TRUTH = {"true": True, "yes": True, "false": False, "no": False}


def read_value(value: Any, annotation: Any, where: str) -> Any:
    """Read a value as a setting's annotation says.

    Args:
        value: a plain value, or text: ``3``, ``1e-3``, ``true``, ``none``, ``0,1,2``.
        annotation: int, float, bool, str, a Literal, a tuple of any length of one of these, or one of these or None.
        where: what a message calls the setting, for instance ``training.epochs``.

    Raises:
        ConfigError: if the value is none of the annotation's.
    """
    if get_origin(annotation) in (Union, types.UnionType):
        if value is None or (isinstance(value, str) and value.lower() in ("none", "null")):
            return None
        (annotation,) = (a for a in get_args(annotation) if a is not type(None))
    if get_origin(annotation) is Literal:
        return _choice(value, get_args(annotation), where)
    if get_origin(annotation) is tuple:
        return tuple(read_value(v, get_args(annotation)[0], where) for v in _members(value, where))
    return _READERS[annotation](value, where)


def kind(annotation: Any) -> str:
    """What a help text writes in the value's place: N, NUMBER, {a,b}, ..."""
    if get_origin(annotation) in (Union, types.UnionType):
        (annotation,) = (a for a in get_args(annotation) if a is not type(None))
    if get_origin(annotation) is Literal:
        return "{" + ",".join(map(str, get_args(annotation))) + "}"
    if get_origin(annotation) is tuple:
        one = kind(get_args(annotation)[0])
        return f"{one},{one},..."
    return {int: "N", float: "NUMBER", bool: "{true,false}"}.get(annotation, "TEXT")


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


_READERS: dict[Any, Callable[[Any, str], Any]] = {
    int: _read_int,
    float: _read_float,
    bool: _read_bool,
    str: _read_str,
}
