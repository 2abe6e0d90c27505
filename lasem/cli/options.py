"""The settings of a run as options: ``--stream NAME`` and ``--stream.FIELD VALUE``, the same for the other parts.

Two steps: first the names that the command line and the file choose, then exactly the chosen classes' settings.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lasem.cli.parser import Parser
from lasem.cli.settings_help import field_help, in_words
from lasem.errors import ConfigError, nearest
from lasem.experiments import PRESETS, ExperimentConfig
from lasem.experiments.config import PARTS, chosen, parts_used, starting_values
from lasem.experiments.methods import LASEM, METHOD_PARTS, method_names, resolve, with_name
from lasem.experiments.yaml_text import from_yaml
from lasem.settings import kind, settings_of

_TITLES = {
    "stream": "what is learned",
    "net": "which layers there are",
    "method": "how tasks are learned",
    "sharing": "how shared knowledge becomes a layer's weights",
    "search": "which configuration a task gets: which layers transfer",
    "protect": "what holds shared knowledge that earlier tasks use",
    "training": "how a task is trained",
}
_SHORT = {("training", "precision"): ("--precision",)}
"""Other names of settings that belong to the machine rather than to what is learned, as --device does."""
COMMON_PARTS = ("stream", "net", "training")
"""What every method has."""


def add_settings(
    parser: Parser,
    argv: Sequence[str],
    stored: Mapping[str, Any],
    only: Sequence[str] | None = None,
    *,
    seeds: bool = True,
) -> None:
    """Add the options of the parts that ``argv``, or else ``stored``, names.

    Args:
        parser: gets the options.
        argv: what a person typed.
        stored: settings below it, as ``resolve`` gives them.
        only: the parts to add; all that the method uses if not given.
        seeds: whether there may be several.

    Raises:
        ConfigError: if a name is not known, or contradicts the method's.
    """
    names = _names(argv)
    preset = names.get("preset") or stored.get("preset", "default")
    run = parser.add_argument_group("the run")
    if seeds:
        text = _text("one run of the stream for each", "0", stored, "seeds")
        run.add_argument("--seeds", metavar="N,N,...", help=text)
    run.add_argument(
        "--device", metavar="NAME", help=_text("where to compute: cpu, cuda, ...", "cpu", stored, "device")
    )
    run.add_argument(
        "--threads", metavar="N", help=_text("threads of the CPU; 0: as torch chooses", "0", stored, "threads")
    )
    run.add_argument(
        "--preset",
        metavar="NAME",
        help=f"{_or(PRESETS)}: what settings are where nothing else is said; paper: what the authors of LASEM ran "
        "(default: default)",
    )
    entry = _with_names(stored, names)
    method = _method(entry)
    shown_method = names.get("method") or method or LASEM
    groups = {"method": parser.add_argument_group(f"method {shown_method}: {_TITLES['method']}")} if not only else {}
    if "method" in groups:
        groups["method"].add_argument(
            "--method",
            metavar="NAME",
            help=f"{names_in_words()} (now: {shown_method})",
        )
    for part in only or parts_used(method is not None):
        name, cls, given = chosen(part, entry.get(part))
        if part not in groups:
            groups[part] = parser.add_argument_group(f"{part}{f' {name}' if name != part else ''}: {_TITLES[part]}")
            if part in PARTS:
                groups[part].add_argument(f"--{part}", metavar="NAME", help=f"{_or(PARTS[part])} (now: {name})")
        texts, known = field_help(cls), settings_of(cls)
        kind_of_method = PARTS["method"][method] if method else None
        presets = starting_values(part, preset, kind_of_method) if preset in PRESETS else {}
        for field, annotation in known.items():
            if part == "training" and kind_of_method is not None and field in kind_of_method.unused:
                continue
            default = cls.__dataclass_fields__[field].default
            value = given.get(field, presets.get(field, default))
            shown = "required" if type(value).__name__ == "_MISSING_TYPE" else f"default: {in_words(value)}"
            groups[part].add_argument(
                f"--{part}.{field}",
                *_SHORT.get((part, field), ()),
                metavar=kind(annotation),
                help=f"{texts.get(field, '')} ({shown})".replace("%", "%%").strip(),
            )


def names_in_words() -> str:
    """The methods' names, for a help text."""
    suffixes = _or([f"-{name}" for name in PARTS["sharing"]])
    return f"{_or(method_names())}; those before {next(iter(PARTS['method']))} may end in {suffixes}, as in lasem-tf"


def read_entry(found: argparse.Namespace, stored: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a file and the options above it make, as plain values.

    Raises:
        ConfigError: if a name is not known, or a setting contradicts the method.
    """
    given = {key: value for key, value in vars(found).items() if value is not None}
    entry = _with_names(stored, given)
    for part in (*PARTS, "training"):
        typed = {key.split(".", 1)[1]: value for key, value in given.items() if key.startswith(f"{part}.")}
        if typed and "method" in given and part in METHOD_PARTS:
            resolve({"method": given["method"], part: typed})  # what the method's name has decided stays
        if typed:
            entry[part] = {**with_name(part, entry.get(part)), **typed}
    return entry | {key: given[key] for key in ("seeds", "device", "threads", "preset") if key in given}


def read_settings(found: argparse.Namespace, stored: Mapping[str, Any]) -> ExperimentConfig:
    """The configuration that a file and the options above it make.

    Raises:
        ConfigError: if a value is not what it must be.
    """
    return ExperimentConfig.from_plain(read_entry(found, stored))


def _with_names(stored: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """A file's settings below the names that the command line chooses: settings of what is not chosen are left out."""
    entry = dict(stored)
    typed = {part: names[part] for part in PARTS if part in names}
    if "method" not in typed and "method" in entry:
        resolve({**typed, "method": _method(entry)})  # a search cannot be chosen for the file's baseline
    decided = resolve(typed)
    if "method" in decided:
        entry = {part: value for part, value in entry.items() if part not in METHOD_PARTS}
    elif "method" in typed:
        entry.pop("method", None)
    for part, value in decided.items():
        wanted = with_name(part, value)
        before = with_name(part, entry.get(part))
        same = chosen(part, wanted)[0] == chosen(part, before or wanted)[0]
        entry[part] = {**before, **wanted} if same else wanted
    return entry


def _method(entry: Mapping[str, Any]) -> str | None:
    return chosen("method", entry["method"])[0] if "method" in entry else None


def read_file(path: str | None, argv: Sequence[str]) -> dict[str, Any]:
    """The settings in ``--config FILE``.

    Raises:
        ConfigError: if it cannot be read, or the command line names another preset than the file.
    """
    if path is None:
        return {}
    stored = from_yaml(read_text(path), path)
    ExperimentConfig.from_plain({key: value for key, value in stored.items() if key not in _TITLES})
    stored = resolve(stored)
    for part in parts_used("method" in stored):
        chosen(part, stored.get(part))  # a name that is not known is told before the options are made
    typed = _names(argv).get("preset")
    if typed and "preset" in stored and stored["preset"] != typed:
        raise ConfigError(
            f"{path} names the preset '{stored['preset']}'; got --preset {typed}, which its settings would override. "
            f"Leave --preset out, or remove the settings from the file that the preset is to give."
        )
    return stored


def read_text(path: str) -> str:
    """A file of settings; ConfigError if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"Expected a YAML file of settings at {path}; {reason}.") from error


def explain_unknown(argv: Sequence[str], parser: Parser, stored: Mapping[str, Any]) -> None:
    """Raise ConfigError for an option of a class that was not chosen; it says which one has it."""
    known = {option for action in parser._actions for option in action.option_strings}
    method = _method(_with_names(stored, _names(argv)))
    for word in argv:
        option = word.split("=")[0]
        part, _, field = option.removeprefix("--").partition(".")
        if not word.startswith("--") or option in known or not field or part not in (*PARTS, "training"):
            continue
        if method and (part in METHOD_PARTS or (part == "training" and field in PARTS["method"][method].unused)):
            raise ConfigError(f"Method '{method}' does not use {option}. Leave it out, or choose another --method.")
        owners = [name for name, cls in PARTS.get(part, {}).items() if field in settings_of(cls)]
        mine = sorted(o for o in known if o.startswith(f"--{part}."))
        if owners:
            raise ConfigError(
                f"{option} is a setting of --{part} {_or(owners)}, which was not chosen. Choose it, or leave "
                f"{option} out (there are now: {', '.join(mine) or 'none'})."
            )
        close = nearest(option, mine)
        there = "" if close else f" The settings of this {part} are: {', '.join(mine) or 'none'}."
        raise ConfigError(f"There is no option {option}.{close}{there}")


def _names(argv: Sequence[str]) -> dict[str, str]:
    names = Parser(add_help=False, prog="lasem run")
    for option in (*PARTS, "preset"):
        names.add_argument(f"--{option}")
    found, _ = names.parse_known_args([word for word in argv if word not in ("-h", "--help")])
    return {key: value for key, value in vars(found).items() if value is not None}


def _text(text: str, default: str, stored: Mapping[str, Any], key: str) -> str:
    return f"{text} (default: {in_words(stored[key]) if key in stored else default})"


def _or(names: Sequence[str] | Mapping[str, Any]) -> str:
    listed = list(names)
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} or {listed[-1]}"
