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
from lasem.experiments.config import PARTS, chosen
from lasem.experiments.presets import base
from lasem.experiments.yaml_text import from_yaml
from lasem.settings import kind, settings_of

_TITLES = {
    "stream": "what is learned",
    "net": "which layers there are",
    "sharing": "how shared knowledge becomes a layer's weights",
    "search": "which configuration a task gets: which layers transfer",
    "training": "how a task is trained",
}


def add_settings(parser: Parser, argv: Sequence[str], stored: Mapping[str, Any]) -> None:
    """Add the options of the parts that ``argv``, or else ``stored``, names.

    Raises:
        ConfigError: if a name is not known.
    """
    names = _names(argv)
    preset = names.get("preset") or stored.get("preset", "default")
    run = parser.add_argument_group("the run")
    run.add_argument("--seeds", metavar="N,N,...", help=_text("one run of the stream for each", "0", stored, "seeds"))
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
    for part, title in _TITLES.items():
        name, cls, given = chosen(part, entry_of(part, stored.get(part), names.get(part)))
        group = parser.add_argument_group(f"{part}: {title}" if part == "training" else f"{part} {name}: {title}")
        if part in PARTS:
            group.add_argument(f"--{part}", metavar="NAME", help=f"{_or(PARTS[part])} (now: {name})")
        texts, known = field_help(cls), settings_of(cls)
        presets = base(preset, part, known) if preset in PRESETS else {}
        for field, annotation in known.items():
            default = cls.__dataclass_fields__[field].default
            value = given.get(field, presets.get(field, default))
            shown = "required" if type(value).__name__ == "_MISSING_TYPE" else f"default: {in_words(value)}"
            group.add_argument(
                f"--{part}.{field}",
                metavar=kind(annotation),
                help=f"{texts.get(field, '')} ({shown})".replace("%", "%%").strip(),
            )


def entry_of(part: str, stored: Any, name: str | None) -> Any:
    """What a file says of a part; nothing if the command line names another one, whose settings differ."""
    if part not in PARTS or name is None:
        return stored
    same = stored is not None and chosen(part, stored)[0] == name
    return stored if same else {"name": name}


def read_settings(found: argparse.Namespace, stored: Mapping[str, Any]) -> ExperimentConfig:
    """The configuration that a file and the options above it make.

    Raises:
        ConfigError: if a value is not what it must be.
    """
    given = {key: value for key, value in vars(found).items() if value is not None}
    entry = dict(stored)
    for part in (*PARTS, "training"):
        name, _, settings = chosen(part, entry_of(part, stored.get(part), given.get(part)))
        typed = {key.split(".", 1)[1]: value for key, value in given.items() if key.startswith(f"{part}.")}
        entry[part] = {**({"name": name} if part in PARTS else {}), **settings, **typed}
    entry |= {key: given[key] for key in ("seeds", "device", "threads", "preset") if key in given}
    return ExperimentConfig.from_plain(entry)


def read_file(path: str | None, argv: Sequence[str]) -> dict[str, Any]:
    """The settings in ``--config FILE``.

    Raises:
        ConfigError: if it cannot be read, or the command line names another preset than the file.
    """
    if path is None:
        return {}
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"Expected a YAML file of settings at {path}; {reason}.") from error
    stored = from_yaml(text, path)
    ExperimentConfig.from_plain({key: value for key, value in stored.items() if key not in _TITLES})
    for part in _TITLES:
        chosen(part, stored.get(part))  # a name that is not known is told before the options are made
    typed = _names(argv).get("preset")
    if typed and "preset" in stored and stored["preset"] != typed:
        raise ConfigError(
            f"{path} names the preset '{stored['preset']}'; got --preset {typed}, which its settings would override. "
            f"Leave --preset out, or remove the settings from the file that the preset is to give."
        )
    return stored


def explain_unknown(argv: Sequence[str], parser: Parser) -> None:
    """Raise ConfigError for an option of a class that was not chosen; it says which one has it."""
    known = {option for action in parser._actions for option in action.option_strings}
    for word in argv:
        option = word.split("=")[0]
        part, _, field = option.removeprefix("--").partition(".")
        if option in known or not field or part not in PARTS:
            continue
        owners = [name for name, cls in PARTS[part].items() if field in settings_of(cls)]
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
