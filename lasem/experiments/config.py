"""Everything that decides a run's results, as one frozen object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_type_hints

from lasem.data import AbstractReader, DigitsReader, FolderReader, ParquetReader
from lasem.errors import ConfigError, check_choice, check_range, nearest
from lasem.experiments.net_choice import AUTO, NetChoice
from lasem.experiments.presets import PRESETS, base
from lasem.experiments.yaml_text import from_yaml, to_yaml
from lasem.nets import NETS
from lasem.search import EM, SEARCHES, AbstractSelection
from lasem.settings import first_missing, from_plain, read_value, settings_of, to_plain
from lasem.sharing import SHARINGS, AbstractSharing, HardSharing
from lasem.training import TrainingConfig

READERS: dict[str, type[Any]] = {cls.name: cls for cls in (DigitsReader, ParquetReader, FolderReader)}
"""The streams that a file or a command line can name; in Python, any AbstractReader can be passed."""

PARTS: dict[str, dict[str, type[Any]]] = {
    "stream": READERS,
    "net": dict.fromkeys((AUTO, *NETS), NetChoice),
    "sharing": dict(SHARINGS),
    "search": dict(SEARCHES),
}
"""The choices that have a name, and the settings' class that each name means. No other name is ever looked up."""

DEFAULT_NAMES = {"stream": "digits", "net": AUTO, "sharing": "hps", "search": "em"}


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """A stream, the choices that make a learner, and the seeds. The objects are the settings.

    Raises:
        ConfigError: if a setting is out of range.
    """

    preset: str = "default"
    """Where the settings started from. The other fields alone say what is run."""
    stream: AbstractReader = field(default_factory=DigitsReader)
    """What is learned."""
    net: NetChoice = field(default_factory=NetChoice)
    """Which layers there are."""
    sharing: AbstractSharing = field(default_factory=HardSharing)
    """How shared knowledge becomes a layer's weights."""
    search: AbstractSelection = field(default_factory=EM)
    """Which configuration a task gets."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """How a task is trained."""
    seeds: tuple[int, ...] = (0,)
    """One run of the whole stream for each; the seed draws the tasks and all initial weights."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, ..."""
    threads: int = 0
    """Threads of a CPU to compute with; 0: as torch chooses."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "seeds", tuple(self.seeds))
        check_choice("preset", self.preset, PRESETS)
        if not self.seeds:
            raise ConfigError("seeds must hold at least one seed; got none.")
        for seed in self.seeds:
            check_range("seeds", seed, least=0)
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds must differ from each other; got {', '.join(map(str, self.seeds))}.")
        check_range("threads", self.threads, least=0)

    def to_plain(self) -> dict[str, Any]:
        """Every setting as YAML and JSON can hold it; ``from_plain`` gives back an equal object."""
        named = {part: _named(getattr(self, part)) for part in PARTS}
        return {
            "preset": self.preset,
            **named,
            "training": to_plain(self.training),
            "seeds": list(self.seeds),
            "device": self.device,
            "threads": self.threads,
        }

    @classmethod
    def from_plain(cls, entry: Mapping[str, Any]) -> ExperimentConfig:
        """Build from plain values. What is not given comes from the preset, and what that leaves open from defaults.

        Raises:
            ConfigError: if a name is unknown (the nearest known one is named), or a value is not what it must be.
        """
        known = [f.name for f in fields(cls)]
        for name in entry:
            if name not in known:
                raise ConfigError(
                    f"There is no setting '{name}' (there are: {', '.join(known)}).{nearest(name, known)}"
                )
        preset = read_value(entry.get("preset", "default"), str, "preset")
        check_choice("preset", preset, PRESETS)
        hints = get_type_hints(cls)
        plain = {
            name: read_value(entry[name], hints[name], name) for name in ("seeds", "device", "threads") if name in entry
        }
        parts = {part: _build(part, entry.get(part), preset) for part in (*PARTS, "training")}
        return cls(preset=preset, **parts, **plain)

    def to_yaml(self) -> str:
        """Every setting as YAML."""
        return to_yaml(self.to_plain())

    @classmethod
    def from_yaml(cls, text: str, where: str = "the configuration") -> ExperimentConfig:
        """Read what ``to_yaml`` wrote, or a part of it that a person wrote; see ``from_plain``."""
        return cls.from_plain(from_yaml(text, where))


def chosen(part: str, entry: Any) -> tuple[str, type[Any], dict[str, Any]]:
    """The name, class and settings that an entry of a file chooses: a mapping with ``name``, or the name alone.

    Raises:
        ConfigError: if there is no such name, or the entry is something else.
    """
    if part == "training":
        name, settings = part, _mapping(part, entry)
        return name, TrainingConfig, settings
    settings = {"name": entry} if isinstance(entry, str) else _mapping(part, entry)
    name = read_value(settings.pop("name", DEFAULT_NAMES[part]), str, f"{part}.name")
    check_choice(part, name, PARTS[part])
    return name, PARTS[part][name], settings


def _mapping(part: str, entry: Any) -> dict[str, Any]:
    if entry is None:
        return {}
    if not isinstance(entry, Mapping):
        what = "'setting: value' lines" if part == "training" else "a name, or 'setting: value' lines"
        raise ConfigError(f"{part} must hold {what}; got {entry!r}.")
    return dict(entry)


def _build(part: str, entry: Any, preset: str) -> Any:
    name, cls, settings = chosen(part, entry)
    whose = part if part == "training" else f"{part} '{name}'"
    missing = first_missing(cls, settings)
    if missing is not None:
        raise ConfigError(
            f"{whose} needs a {missing}; none was given. Add --{part}.{missing}, or {missing} under {part} in a file."
        )
    built = from_plain(cls, {**base(preset, part, settings_of(cls)), **settings}, part, whose)
    return replace(built, name=name) if isinstance(built, NetChoice) else built


def _named(settings: Any) -> dict[str, Any]:
    name = getattr(settings, "name", None)
    return {"name": name if isinstance(name, str) else type(settings).__name__, **to_plain(settings)}
