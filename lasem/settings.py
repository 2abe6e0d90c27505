"""Settings as plain values and back: frozen dataclasses <-> what JSON and YAML can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser

from lasem.errors import ConfigError, nearest

_S = TypeVar("_S")


def to_plain(settings: Any) -> dict[str, Any]:
    """The fields of a settings dataclass, tuples as lists."""
    return {f.name: _plain(getattr(settings, f.name)) for f in fields(settings)}


def from_plain(cls: type[_S], entry: Mapping[str, Any], where: str) -> _S:
    """Build a settings dataclass from plain values; fields that are not given keep their defaults.

    Only the types that the fields are annotated with can come out: no name in ``entry`` is ever imported.

    Args:
        cls: a frozen dataclass whose fields are numbers, text, choices and tuples of them.
        entry: values by field name.
        where: what a message calls the settings, for instance ``--training``.

    Raises:
        ConfigError: if a name is unknown (the nearest known one is named), or a value has another type.
    """
    known = [f.name for f in fields(cls) if f.init]  # type: ignore[arg-type]
    for name in entry:
        if name not in known:
            raise ConfigError(
                f"{where} has no setting '{name}' (there are: {', '.join(known) or 'none'}).{nearest(name, known)}"
            )
    types = get_type_hints(cls)
    for name, value in entry.items():  # the parser takes None for "not given"
        if value is None and types[name] is not Any and NoneType not in get_args(types[name]):
            raise ConfigError(f"{where}: expected a value for '{name}'; got none.")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls)
    try:
        return cls(**parser.parse_object(dict(entry)).as_dict())
    except ArgumentError as error:
        raise ConfigError(f"{where}: {error}") from error


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple) else value
