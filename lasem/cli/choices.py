"""The settings of an experiment on the command line: ``--search NAME``, ``--search.FIELD VALUE``, ``--epochs N``."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, final

from lasem import files
from lasem.errors import ConfigError
from lasem.settings import from_yaml, in_words, metavar, settings_of

Rows = list[tuple[str, str]]
"""Options and their texts in a help page."""

_PARTS = ("stream", "net", "method", "sharing", "search", "protect", "training")
_PLAIN = ("seeds", "stream-seed", "device", "threads", "preset")
"""Settings that belong to no part."""
_TEXTS = {
    "method": ("NAME", "how tasks are learned: lasem, all (transfer-all), none (single-task), ewc ..."),
    "sharing": ("NAME", "how layers are shared: hps, tf, dfcnn, low-rank"),
    "search": ("NAME", "which layers transfer: em, darts, ... or mine.Class"),
    "protect": ("NAME", "what earlier tasks know: branch, freeze, penalty, none"),
    "stream": ("NAME", "what is learned: digits, parquet, cifar100, ..."),
    "net": ("NAME", "which layers: auto, timm:NAME, hf:FOLDER, cifar, ..."),
    "epochs": ("N", "passes over a task's training images (default: 60)"),
    "batch-size": ("N", "images in a mini-batch (default: 10)"),
    "lr": ("NUMBER", "step size of the optimiser (default: 1e-3)"),
    "seeds": ("N,N,...", "one run of the stream for each (default: 0)"),
    "stream-seed": ("N", "draws the tasks of all seeds, which then differ in weights and order of images alone"),
    "device": ("NAME", "where to compute: cpu, cuda, cuda:1, ... (default: cpu)"),
    "threads": ("N", "threads of the CPU; 0: as many as torch chooses"),
    "preset": ("NAME", "what settings start from: default, or paper for those of LASEM's authors"),
}
"""What most people need; written here, because the classes that have it need seconds to import."""


@final
@dataclass(frozen=True)
class Choosable:
    """The settings that a command takes."""

    parts: tuple[str, ...]
    """Parts of an experiment's settings."""
    plain: tuple[str, ...]
    """Settings that belong to no part."""
    shown: tuple[str, ...]
    """Options that a short help page has."""
    rare: tuple[str, ...] = ()
    """Options of the command itself that it leaves out."""
    elsewhere: str = ""
    """What a message says of other parts."""
    start: Mapping[str, Any] = field(default_factory=dict)
    """What is used where no method, nor any of a method's parts, is named."""

    @property
    def rows(self) -> Rows:
        """The options of a short help page."""
        return _rows(self.shown)

    @property
    def options(self) -> list[str]:
        """Every option that is not about one class alone."""
        fields = list(_training())
        return [f"--{name}" for name in (*self.parts, *self.plain, "lr", *fields, *(f"training.{f}" for f in fields))]

    def setting(self, option: str) -> str | None:
        """Return the setting that an option means, such as ``training.epochs`` for ``--epochs``."""
        name = option.removeprefix("--")
        part, dot, _ = name.partition(".")
        if name.replace("_", "-") in self.plain:
            return name.replace("-", "_")
        if part in self.parts and (dot or part != "training"):
            return name
        if part in _PARTS and self.elsewhere:
            raise ConfigError(f"{option} is an option of lasem run; {self.elsewhere}")
        field = "learning_rate" if name == "lr" else name.replace("-", "_")
        return f"training.{field}" if field in _training() else None

    def started(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Return settings by part with those of ``start``, unless another choice was made."""
        chosen = entry.keys() & {"method", "preset", "sharing", "protect"} or "name" in entry.get("search", {})
        return entry if chosen else layered(self.start, entry)

    def groups(self, given: Mapping[str, str]) -> list[tuple[str, Rows]]:
        """Return a title and the options of each part, with the settings of the classes that are chosen."""
        from lasem.experiments.config import parts_used, starting_values
        from lasem.experiments.parts import PARTS, chosen

        entry = layered({}, self.started(nested(given)))
        method = chosen("method", entry["method"])[1] if "method" in entry else None
        groups = [("settings of the run", _rows(self.plain))]
        for part in self.parts:
            names = (
                _method_names()
                if part == "method"
                else f"{', '.join(PARTS.get(part, {}))}, or module.Class of your own"
            )
            rows = [] if part == "training" else [(f"--{part} NAME", names)]
            title = f"{part} lasem"
            if part in parts_used(method is not None):
                name, cls, settings = chosen(part, entry.get(part))
                title = "how a task is trained" if part == "training" else f"{part} {name}"
                start = starting_values(part, entry.get("preset", "default"), method, entry) | settings
                unused = method.unused if method and part == "training" else ()
                rows += _settings(part, cls, start, unused)
            elif part != "method":
                continue
            if part in _TEXTS:
                title += ": " + _TEXTS[part][1].partition(":")[0]
            groups.append((title, rows))
        return groups


_RARE = ("protect", "stream-seed", "threads", "preset")
RUN = Choosable(_PARTS, _PLAIN, tuple(name for name in _TEXTS if name not in _RARE), ("checkpoint-seconds",))
COMPARISON = Choosable(
    ("stream", "net", "training"),
    _PLAIN,
    ("stream", "net", "epochs", "batch-size", "lr", "seeds", "device"),
    elsewhere="in a comparison each method has its own. Name it in --methods, such as lasem-tf or darts, or in a "
    "--methods-file.",
)
MODEL = Choosable(
    ("net", "method", "sharing", "search", "protect", "training"),
    ("device", "threads", "preset"),
    ("method", "sharing", "search", "protect", "net", "epochs", "batch-size", "lr", "device"),
    (
        *("image-column", "label-column", "text-column", "image-size", "channels"),
        *("restart", "wait", "checkpoint-seconds", "watch", "quiet"),
    ),
    start={"search": {"name": "evidence"}, "protect": {"name": "freeze"}},
)


def nested(given: Mapping[str, str]) -> dict[str, Any]:
    """Return settings by part: a part alone is its ``name``, ``training.epochs`` is ``epochs`` of ``training``."""
    entry: dict[str, Any] = {}
    for setting, text in given.items():
        part, _, field = setting.partition(".")
        if part in _PARTS:
            entry.setdefault(part, {})[field or "name"] = text
        else:
            entry[part] = text
    return entry


def layered(stored: Mapping[str, Any], typed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a file below those of a command line, without settings of what is chosen no more.

    ConfigError if a method's name contradicts other settings of the command line.
    """
    from lasem.experiments.parts import DEFAULT_NAMES, METHOD_PARTS, resolve, with_name

    below, above = resolve(stored), dict(typed)
    if "name" in above.get("method", {}):
        above = resolve(above)
        left_out = METHOD_PARTS if "method" in above else ("method",)
        below = {part: value for part, value in below.items() if part not in left_out}
    entry = below | {name: value for name, value in above.items() if name not in _PARTS}
    for part in _PARTS:
        if part in above:
            before = with_name(part, below.get(part))
            same = above[part].get("name") in (None, before.get("name", DEFAULT_NAMES.get(part)))
            entry[part] = {**before, **above[part]} if same else above[part]
    return entry


def read_file(path: Path | None, typed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings in a YAML file; ConfigError if it cannot be read, or --preset is not the file's."""
    if path is None:
        return {}
    stored: dict[str, Any] = from_yaml(read_text(path), str(path))
    preset = typed.get("preset")
    if preset and stored.get("preset", preset) != preset:
        raise ConfigError(
            f"{path} names the preset '{stored['preset']}'; got --preset {preset}, which its settings would override. "
            f"Leave --preset out, or remove the settings from the file that the preset is to give."
        )
    return stored


def read_text(path: Path) -> str:
    """Return the text of a file of settings; raise ConfigError if it cannot be read."""
    try:
        return files.read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"Expected a YAML file of settings at {path}; {reason}.") from error


def _training() -> Mapping[str, Any]:
    """The settings of training; imported here, not above, for a quick help page."""
    from lasem.training import TrainingConfig

    return settings_of(TrainingConfig)


def _method_names() -> str:
    from lasem.experiments.parts import PARTS, method_names

    suffixes = ", ".join(f"-{name}" for name in PARTS["sharing"])
    return f"{', '.join(method_names())}; those before {next(iter(PARTS['method']))} may end in one of {suffixes}"


def _rows(names: Iterable[str]) -> Rows:
    return [(f"--{name} {_TEXTS[name][0]}", _TEXTS[name][1]) for name in names]


def _settings(part: str, cls: type[Any], start: Mapping[str, Any], unused: Collection[str]) -> Rows:
    """The options of a class's settings: texts are the docstrings of its fields, and of those that it inherits."""
    import docstring_parser

    texts: dict[str, str] = {}
    for parent in reversed(cls.__mro__):
        if "__annotations__" in vars(parent):
            documented = docstring_parser.parse_from_object(parent).params
            texts |= {p.arg_name: p.description or "" for p in documented}
    rows = []
    for name, annotation in settings_of(cls).items():
        text = re.sub(r"\[(\w+)\]_", r"\1", texts.get(name, "").replace("``", ""))  # markup: code and references
        default = start.get(name, cls.__dataclass_fields__[name].default)
        shown = "required" if default is MISSING else f"default: {in_words(default)}"
        if name not in unused:
            rows.append((f"--{part}.{name} {metavar(annotation)}", " ".join(f"{text} ({shown})".split())))
    return rows
