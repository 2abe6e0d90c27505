"""Settings: frozen dataclasses, what their fields may hold, and plain values for JSON, YAML and command lines.

A field's annotation says what it may hold: ``Literal`` the choices, ``Annotated[float, Range(above=0)]`` the range.
Reading makes values of the annotated types only. (jsonargparse was tried: its messages run over several lines and name
no nearest choice, and to replace them took as much code as this module.)
"""

import hashlib
import math
import operator
import types
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields, is_dataclass
from inspect import get_annotations
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, TypeVar, Union, final, get_args, get_origin, get_type_hints

import numpy as np
import yaml

from lasem.errors import ConfigError, nearest

_S = TypeVar("_S")
_KNOWN: dict[type[Any], dict[str, Any]] = {}
_KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text (a number in quotes)",
    Path: "a path",
}
_TRUTH = {"true": True, "yes": True, "false": False, "no": False}


@final
@dataclass(frozen=True, kw_only=True)
class Range:
    """The bounds of a finite number, for its annotation."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def check(self, setting: str, value: float) -> None:
        """Raise ConfigError unless a setting's value is finite and inside the bounds."""
        words = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        holds = {"at least": operator.ge, "above": operator.gt, "at most": operator.le, "below": operator.lt}
        given = {word: bound for word, bound in words.items() if bound is not None}
        if not (abs(value) < math.inf and all(holds[word](value, bound) for word, bound in given.items())):
            bounds = " and ".join(f"{word} {bound}" for word, bound in given.items())
            raise ConfigError(f"{setting} must be {bounds or 'finite'}; got {value}.")


class Settings:
    """A base of settings dataclasses that checks each field against its annotation."""

    def __post_init__(self) -> None:
        """Check the fields; ConfigError if a value is out of its range, or none of the choices."""
        with suppress(NameError):  # a user's annotation may name what is imported for type checkers only
            settings_of(type(self))
        for name, annotation in _KNOWN.get(type(self), {}).items():
            check_value(f"{type(self).__name__}.{name}", getattr(self, name), annotation)


def check_value(where: str, value: Any, annotation: Any) -> None:
    """Raise ConfigError if a value of the annotated type is out of its range, or none of its choices."""
    if value is None and _not_none(annotation) is not annotation:
        return
    annotation = _not_none(annotation)
    bounds: tuple[Any, ...] = ()
    if get_origin(annotation) is Annotated:
        bounds, annotation = annotation.__metadata__, annotation.__origin__
    if annotation is int and (isinstance(value, bool) or not isinstance(value, int)):
        raise ConfigError(f"{where} must be an integer; got {value!r}.")
    for bound in bounds:
        if isinstance(bound, Range):
            if not isinstance(value, int | float):
                raise ConfigError(f"{where} must be a number; got {value!r}.")
            bound.check(where, value)
    if get_origin(annotation) is Literal:
        check_choice(where, str(value), [str(choice) for choice in get_args(annotation)])
    elif get_origin(annotation) is tuple:
        for member in value:
            check_value(where, member, get_args(annotation)[0])


def check_choice(setting: str, value: str, choices: Iterable[str]) -> None:
    """Raise ConfigError unless ``value`` is one of ``choices``; the message names the nearest one."""
    known = tuple(choices)
    if value not in known:
        raise ConfigError(f"{setting} must be one of {', '.join(known)}; got '{value}'.{nearest(value, known)}")


def settings_of(cls: type[Any]) -> dict[str, Any]:
    """Return the settings of a dataclass and their annotations; its name is not one of them."""
    if cls not in _KNOWN:  # looked up once: a grid reads settings hundreds of times
        hints = get_type_hints(cls, include_extras=True)
        _KNOWN[cls] = {f.name: hints[f.name] for f in fields(cls) if f.init and f.name != "name"}
    return _KNOWN[cls]


def from_plain(cls: type[_S], entry: Mapping[str, Any], where: str, whose: str | None = None) -> _S:
    """Build a settings dataclass from plain values; fields that are not given keep their defaults.

    Messages put ``where`` before a setting's name, for instance ``training``, and call all together ``whose``, or the
    same. ConfigError if a name is unknown (the nearest known one is named) or missing, or a value is not what it must
    be.
    """
    known, retired = settings_of(cls), getattr(cls, "retired", {})
    entry = {name: value for name, value in entry.items() if not (name in retired and retired[name] in (None, value))}
    for name in entry:
        if name not in known:
            raise ConfigError(
                f"{whose or where} has no setting '{name}' (there are: {', '.join(known) or 'none'})."
                f"{nearest(str(name), known)}"
            )
    values = {name: read_value(value, known[name], f"{where}.{name}") for name, value in entry.items()}
    for field in fields(cls):  # type: ignore[arg-type]
        if field.name in known and field.name not in values and field.default is field.default_factory is MISSING:
            raise ConfigError(f"{whose or where} needs a value for '{field.name}'; none was given.")
    try:
        return cls(**values)
    except ConfigError as error:  # a person wrote "training.epochs", not "TrainingConfig.epochs"
        raise ConfigError(str(error).replace(f"{cls.__name__}.", f"{where}.")) from error


def read_value(value: Any, annotation: Any, where: str) -> Any:
    """Read a plain value, or text (``3``, ``1e-3``, ``true``, ``none``, ``0,1,2``), as a setting's annotation says.

    That is int, float, bool, str, Path, a Literal, a tuple of any length of one of these, a NamedTuple of them
    (``name=3,other=4``, or the values in its order), or one of these or None; each perhaps with a range. ConfigError,
    which calls the setting ``where``, if the value is none of the annotation's.
    """
    only = _not_none(annotation)
    if only is not annotation and (value is None or (isinstance(value, str) and value.lower() in ("none", "null"))):
        return None
    kind = only.__origin__ if get_origin(only) is Annotated else only
    if get_origin(kind) is Literal:
        read = next((choice for choice in get_args(kind) if str(choice) == str(value)), value)
    elif get_origin(kind) is tuple:
        read = tuple(read_value(member, get_args(kind)[0], where) for member in _members(value, where))
    elif named := _named(kind):
        read = kind(**_read_named(value, named, where))
    else:
        read = _scalar(value, kind, where)
    check_value(where, read, only)
    return read


def metavar(annotation: Any) -> str:
    """Return what stands for a value in a help text: N, NUMBER, {a,b}, ..."""
    annotation = _not_none(annotation)
    if get_origin(annotation) is Annotated:
        return metavar(annotation.__origin__)
    if get_origin(annotation) is Literal:
        return "{" + ",".join(map(str, get_args(annotation))) + "}"
    if get_origin(annotation) is tuple:
        one = metavar(get_args(annotation)[0])
        return f"{one},{one},..."
    if named := _named(annotation):
        return ",".join(f"{name}={metavar(member)}" for name, member in named.items())
    return {int: "N", float: "NUMBER", bool: "{true,false}", Path: "PATH"}.get(annotation, "NAME")


def to_plain(settings: Any) -> dict[str, Any]:
    """Return the fields of a dataclass: tuples as lists, paths as text, of tensors type, shape and checksum.

    Raises:
        ConfigError: if it is no dataclass, or a field holds what no file of settings can.
    """
    return _fields(settings, _describe_array)


def check_plain(settings: Any) -> None:
    """Raise the errors of ``to_plain`` without its checksums, which take time for large tensors."""
    _fields(settings, lambda numbers: "")


def full_name(thing: Any) -> str:
    """Return the module and name of a class or function, which a file has for one that is not lasem's."""
    return f"{thing.__module__}.{thing.__qualname__}"


def to_named(value: Any, known: Mapping[str, type[Any]], *, importable: bool = False) -> dict[str, Any]:
    """Return the name and settings of an object.

    A class that is not known has its full name if that is to import it, or if a known class has its own name.
    """
    name = getattr(value, "name", None)
    if known.get(str(name), None if importable else type(value)) is not type(value):
        name = full_name(type(value))
    return {"name": name} | to_plain(value) | {"name": name}


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Return nested plain values by one name each, such as ``training.epochs``; all names begin with ``name``."""
    if not isinstance(value, Mapping):
        return {name: value}
    parts = {f"{name}.{key}" if name else str(key): part for key, part in value.items()}
    return {key: entry for path, part in parts.items() for key, entry in flat(part, path).items()}


def in_words(value: Any) -> str:
    """Return a setting's value as a person types it."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "empty"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _not_none(annotation: Any) -> Any:
    """The annotation without ``| None``."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(one for one in get_args(annotation) if one is not type(None))
    return annotation


def _named(annotation: Any) -> dict[str, Any]:
    """The fields of a NamedTuple and their annotations; of anything else none."""
    return get_type_hints(annotation, include_extras=True) if hasattr(annotation, "_fields") else {}


def _read_named(value: Any, named: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Read ``name=value`` for some fields of a NamedTuple, or values in the order of its fields."""
    members = [str(member) for member in _members(value, where)]
    pairs = [member if "=" in member else f"{name}={member}" for member, name in zip(members, named, strict=False)]
    found = dict(pair.split("=", 1) for pair in pairs)
    if len(found) < len(members):
        raise ConfigError(f"{where} takes one number for each of {', '.join(named)}; got {value!r:.80}.")
    for name in found:
        check_choice(where, name, named)
    return {name: read_value(text, named[name], f"{where}.{name}") for name, text in found.items()}


def _scalar(value: Any, kind: Any, where: str) -> Any:
    try:
        fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
        if isinstance(value, str) or (fits and isinstance(value, bool) == (kind is bool)):
            read = _TRUTH[value.lower()] if kind is bool and isinstance(value, str) else kind(value)
            if isinstance(read, int | float) and not abs(read) < 2**63:
                raise ConfigError(f"{where} must be a finite number below 2^63; got {str(value)[:40]}.")
            if "\0" not in str(read):
                return read
    except (KeyError, ValueError, OverflowError, TypeError):
        pass
    if kind not in _KINDS:
        raise ConfigError(f"{where} is annotated as {kind}, which no file of settings can hold; got {value!r:.80}.")
    raise ConfigError(f"{where} must be {_KINDS[kind]}; got {value!r:.80}.")


def _members(value: Any, where: str) -> list[Any]:
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")] if value.strip() else []
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [value]
    raise ConfigError(f"{where} must be a list such as 0,1,2; got {value!r}.")


def _fields(settings: Any, describe: Callable[[Any], str]) -> dict[str, Any]:
    cls = type(settings)
    if not is_dataclass(cls) or ("__dataclass_fields__" not in vars(cls) and _has_more(cls)):
        raise ConfigError(
            f"Settings are kept by their fields, and {cls.__name__} is no dataclass. Make it a frozen dataclass: put "
            f"@dataclass(frozen=True) above the class, and a field for each setting in place of __init__."
        )
    return {f.name: _plain(getattr(settings, f.name), f"{cls.__name__}.{f.name}", describe) for f in fields(settings)}


def _has_more(cls: type[Any]) -> bool:
    """Whether a class whose parents are dataclasses has settings that they do not know."""
    fields_added = [name for name, hint in get_annotations(cls).items() if "ClassVar" not in str(hint)]
    return bool(fields_added) or "__init__" in vars(cls)


def _plain(value: Any, where: str, describe: Callable[[Any], str]) -> Any:
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
        return [_plain(v, where, describe) for v in value]
    if isinstance(value, Mapping) and all(isinstance(key, str | int) for key in value):
        return {key: _plain(v, f"{where}[{key!r}]", describe) for key, v in value.items()}
    if hasattr(value, "dtype") and hasattr(value, "shape") and value.dtype != object:
        return describe(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {"class": full_name(type(value)), **_fields(value, describe)}
    raise ConfigError(
        f"{where} is of type {type(value).__name__}, which no file of settings can hold. Make it of text, numbers, "
        f"true or false, paths, tensors, dataclasses of such fields, or tuples and dictionaries of these."
    )


def _describe_array(numbers: Any) -> str:
    """A text that differs where two tensors or arrays differ."""
    array = np.ascontiguousarray(numbers.detach().cpu() if hasattr(numbers, "detach") else numbers)
    return f"{array.dtype} {array.shape}, sha256 {hashlib.sha256(array.data).hexdigest()}"


def to_yaml(entry: dict[str, Any] | list[dict[str, Any]]) -> str:
    """Write nested dictionaries in their order, lists on one line; a list of dictionaries one below the other."""
    if isinstance(entry, list):
        lines = [to_yaml(item).splitlines() for item in entry]
        return "".join(f"- {first}\n" + "".join(f"  {line}\n" for line in rest) for first, *rest in lines)
    return yaml.dump(entry, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def from_yaml(text: str, where: str, *, of_list: bool = False) -> Any:
    """Read names and plain values, or a list; ConfigError if it is neither, or has tags, aliases or a key twice."""
    try:
        entry = yaml.load(text, Loader=_Loader)  # a subclass of SafeLoader
    except Exception as error:  # some values make the library fail with other errors than its own
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"Expected settings as YAML in {where}{place}; {problem}.") from error
    if of_list and not isinstance(entry, list):
        raise ConfigError(f"Expected a list, each line beginning with '- ', in {where}; got {str(entry)[:60]!r}.")
    entry = {} if entry is None else entry
    if not of_list and not (isinstance(entry, dict) and all(isinstance(key, str) for key in entry)):
        raise ConfigError(f"Expected 'setting: value' in every line of {where}; got {str(entry)[:60]!r}.")
    return entry


class _Dumper(yaml.SafeDumper):
    """Lists on one line, no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(
    list, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)
)


class _Loader(yaml.SafeLoader):
    """A key that comes twice is refused, for the first value would be lost; and aliases, which can grow without end."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "an alias (*) is not read", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) < len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "a setting is given twice", node.start_mark)
        return mapping


# no setting is a date
_Loader.add_constructor("tag:yaml.org,2002:timestamp", lambda _, node: str(node.value))
