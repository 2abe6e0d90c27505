"""Plain values as YAML and back. Reading builds plain values only: no tag can make anything else."""

from __future__ import annotations

from typing import Any

import yaml

from lasem.errors import ConfigError


def to_yaml(entry: dict[str, Any] | list[dict[str, Any]]) -> str:
    """Write nested dictionaries in their order, lists on one line; a list of dictionaries one below the other."""
    if isinstance(entry, list):
        lines = [to_yaml(item).splitlines() for item in entry]
        return "".join(f"- {first}\n" + "".join(f"  {line}\n" for line in rest) for first, *rest in lines)
    return yaml.dump(entry, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def from_yaml(text: str, where: str) -> dict[str, Any]:
    """Read a mapping of names to plain values.

    Raises:
        ConfigError: if it is no YAML, holds a tag of another language's objects, names a key twice, or is no mapping.
    """
    entry = _load(text, where)
    if entry is None:
        return {}
    if not isinstance(entry, dict) or not all(isinstance(key, str) for key in entry):
        raise ConfigError(f"Expected 'setting: value' in every line of {where}; got {str(entry)[:60]!r}.")
    return entry


def list_from_yaml(text: str, where: str) -> list[Any]:
    """Read a list of plain values.

    Raises:
        ConfigError: as ``from_yaml``, or if it is no list.
    """
    entry = _load(text, where)
    if not isinstance(entry, list):
        raise ConfigError(f"Expected a list, each line beginning with '- ', in {where}; got {str(entry)[:60]!r}.")
    return entry


def _load(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # a subclass of SafeLoader
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"Expected settings as YAML in {where}{place}; {problem}.") from error


class _Dumper(yaml.SafeDumper):
    """Lists on one line, no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(
    list, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)
)


class _Loader(yaml.SafeLoader):
    """A key that comes twice is refused: the first value would be lost silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) < len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "a setting is given twice", node.start_mark)
        return mapping
