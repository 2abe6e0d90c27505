"""The names of methods: a baseline, or a shorthand for a search and a sharing mechanism together.

``lasem`` decides nothing: sharing and search are as set. ``all``, ``none``, ``alternating``, ``top-K`` and ``bottom-K``
fix the configuration, the name of a search lets it choose; ``-hps``, ``-tf``, ``-dfcnn`` or ``-low-rank`` after any
of these chooses the mechanism. A shorthand is taken apart when settings are read, so that what a run stores says all of
it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lasem.errors import ConfigError, nearest
from lasem.experiments.parts import owners, with_name
from lasem.methods import METHODS, Freeze
from lasem.search import EM, SEARCHES, Fixed
from lasem.settings import read_value
from lasem.sharing import SHARINGS

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


def method_names() -> tuple[str, ...]:
    """Every name there is, without suffixes."""
    searches = (name for name in SEARCHES if name not in (EM.name, Fixed.name))
    return (LASEM, "all", "none", "alternating", "top-K", "bottom-K", *searches, *METHODS)


def parts_of(name: str) -> dict[str, dict[str, Any]]:
    """What a method's name decides: for each part that it speaks of, the part's name and settings.

    ``darts-tf`` gives sharing and search, ``all`` the search alone, ``lasem`` nothing, ``ewc`` the part ``method``.

    Raises:
        ConfigError: if there is no such method (the nearest one is named).
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
    """Settings with what a method's name stands for in the name's place: ``method`` is left for a baseline only.

    Raises:
        ConfigError: if the method is unknown, or contradicts what is said of sharing or search.
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
