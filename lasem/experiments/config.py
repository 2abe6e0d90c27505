"""Everything that decides a run's results, as one frozen object."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import Any

from lasem.data import BENCHMARKS, AbstractReader, DigitsReader, FolderReader, ParquetReader, PlantedReader
from lasem.errors import ConfigError, check_choice, check_range, nearest
from lasem.experiments.methods import METHOD_PARTS, refuse_own, resolve, setting_of, with_name
from lasem.experiments.net_choice import AUTO, NetChoice
from lasem.experiments.own import AnyNet, build_net, check_part, is_own, part_to_plain
from lasem.experiments.presets import PRESETS
from lasem.experiments.yaml_text import from_yaml, to_yaml
from lasem.methods import METHODS, PROTECTIONS, AbstractMethod, AbstractProtection, Unprotected
from lasem.nets import NETS, AbstractNet, ImageShape
from lasem.search import EM, SEARCHES, AbstractSelection
from lasem.settings import first_missing, flat, from_plain, read_value, settings_of, to_plain, type_hints
from lasem.sharing import SHARINGS, AbstractSharing, HardSharing
from lasem.training import TrainingConfig

_READERS: tuple[type[Any], ...] = (DigitsReader, ParquetReader, FolderReader, *BENCHMARKS, PlantedReader)
READERS: dict[str, type[Any]] = {cls.name: cls for cls in _READERS}
"""The streams that a file or a command line can name; in Python, any AbstractReader can be passed."""

PARTS: dict[str, dict[str, type[Any]]] = {
    "stream": READERS,
    "net": dict.fromkeys((AUTO, *NETS), NetChoice),
    "sharing": dict(SHARINGS),
    "search": dict(SEARCHES),
    "protect": dict(PROTECTIONS),
    "method": dict(METHODS),
}
"""The choices that have a name, and the settings' class that each name means. No other name is ever looked up."""

DEFAULT_NAMES = {"stream": "digits", "net": AUTO, "sharing": "hps", "search": "em", "protect": "none"}


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """A stream, the choices that make a learner, and the seeds. The objects are the settings.

    Raises:
        ConfigError: if a part is not of its class or holds what no file of settings can, a setting is out of range, or
            one that the method does not use is not at its default.
    """

    preset: str = "default"
    """Where the settings started from. The other fields alone say what is run."""
    stream: AbstractReader = field(default_factory=DigitsReader)
    """What is learned."""
    net: AnyNet = field(default_factory=NetChoice)
    """Which layers there are: a choice among the paper's networks, any network, or a function of the image shape
    (channels, height, width) that gives one."""
    sharing: AbstractSharing = field(default_factory=HardSharing)
    """How shared knowledge becomes a layer's weights."""
    search: AbstractSelection = field(default_factory=EM)
    """Which configuration a task gets."""
    protect: AbstractProtection = field(default_factory=Unprotected)
    """What holds shared knowledge that earlier tasks use."""
    method: AbstractMethod | None = None
    """A baseline, which learns tasks in another way than by sharing and search; None: by these two."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """How a task is trained. In Python, pass ``TrainingConfig(**method.training)`` to a method that needs its own."""
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
        for part in dict.fromkeys((*parts_used(False), *self.parts)):
            check_part(part, getattr(self, part))
        if self.method is not None:
            self._check_used(self.method)

    def _check_used(self, method: AbstractMethod) -> None:
        for part, default in (("sharing", HardSharing()), ("search", EM()), ("protect", Unprotected())):
            if getattr(self, part) != default:
                raise ConfigError(f"Method '{method.name}' does not use {part}; got {getattr(self, part)}.")
        defaults = to_plain(TrainingConfig()) | dict(method.training)
        for name, value in to_plain(self.training).items():
            if name in method.unused and value != defaults[name]:
                raise ConfigError(
                    f"Method '{method.name}' does not use training.{name}; got {value}. Leave it out "
                    f"(default: {defaults[name]})."
                )

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the settings that the run uses: no sharing, search and protection for a baseline."""
        return parts_used(self.method is not None)

    @property
    def own_parts(self) -> tuple[str, ...]:
        """The parts that are of a person's own class, or networks: no file can bring them back."""
        named = (part for part in self.parts if part in PARTS)
        return tuple(part for part in named if is_own(getattr(self, part), PARTS[part]))

    def build_net(self, image_shape: ImageShape) -> AbstractNet:
        """The network for images of (channels, height, width).

        Raises:
            ConfigError: if the function that was given as ``net`` gives something else.
        """
        return build_net(self.net, image_shape)

    def to_plain(self) -> dict[str, Any]:
        """Every setting as YAML and JSON can hold it; ``from_plain`` gives back an equal object, own classes apart.

        Raises:
            ConfigError: if a network's description or a field holds what no file can.
        """
        plain = {part: part_to_plain(part, getattr(self, part), PARTS.get(part, {})) for part in self.parts}
        for unused in self.method.unused if self.method is not None else ():
            plain["training"].pop(unused, None)
        return {
            "preset": self.preset,
            **plain,
            "seeds": list(self.seeds),
            "device": self.device,
            "threads": self.threads,
        }

    @classmethod
    def from_plain(cls, entry: Mapping[str, Any]) -> ExperimentConfig:
        """Build from plain values. What is not given comes from the preset, and what that leaves open from defaults.

        ``method`` may also be a shorthand for sharing and search; see ``lasem.experiments.methods``.

        Raises:
            ConfigError: if a name is unknown (the nearest known one is named), a value is not what it must be, or the
                method does not use what is set.
        """
        known = [f.name for f in fields(cls)]
        for name in entry:
            if name not in known:
                raise ConfigError(
                    f"There is no setting '{name}' (there are: {', '.join(known)}).{nearest(name, known)}"
                )
        preset = read_value(entry.get("preset", "default"), str, "preset")
        check_choice("preset", preset, PRESETS)
        hints = type_hints(cls)
        plain = {
            name: read_value(entry[name], hints[name], name) for name in ("seeds", "device", "threads") if name in entry
        }
        entry = resolve(entry)
        parts: dict[str, Any] = {}
        for part in parts_used("method" in entry):
            parts[part] = _build(part, entry.get(part), preset, parts.get("method"))
        return cls(preset=preset, **parts, **plain)

    def to_yaml(self) -> str:
        """Every setting as YAML."""
        return to_yaml(self.to_plain())

    @classmethod
    def from_yaml(cls, text: str, where: str = "the configuration") -> ExperimentConfig:
        """Read what ``to_yaml`` wrote, or a part of it that a person wrote; see ``from_plain``."""
        return cls.from_plain(from_yaml(text, where))


def parts_used(baseline: bool) -> tuple[str, ...]:
    """The parts of a baseline's settings, or of any other run's, in the order in which they are written."""
    return ("stream", "net", *(("method",) if baseline else METHOD_PARTS), "training")


def chosen(part: str, entry: Any) -> tuple[str, type[Any], dict[str, Any]]:
    """The name, class and settings that an entry of a file chooses: a mapping with ``name``, or the name alone.

    Raises:
        ConfigError: if there is no such name, or the entry is something else.
    """
    settings = with_name(part, entry)
    if part == "training":
        return part, TrainingConfig, settings
    name = read_value(settings.pop("name", DEFAULT_NAMES.get(part)), str, f"{part}.name")
    refuse_own(part, name)
    check_choice(part, name, PARTS[part])
    return name, PARTS[part][name], settings


def starting_values(part: str, preset: str, method: AbstractMethod | type[AbstractMethod] | None) -> dict[str, Any]:
    """What a part starts from below explicit settings: the preset, and for training what a baseline needs above it."""
    values = dict(PRESETS[preset].get(part, {}))
    if part == "training" and method is not None:
        values = {name: value for name, value in values.items() if name not in method.unused} | dict(method.training)
    return values


def differences(one: ExperimentConfig, other: ExperimentConfig) -> list[tuple[str, Any, Any]]:
    """The settings in which two configurations differ: (name, value in the one, value in the other).

    Settings that come to the same do not: one folder by two paths, and whether data were to be fetched that are there.
    """
    return _different(one.to_plain(), other.to_plain())


def stored_differences(text: str, where: str, config: ExperimentConfig) -> list[tuple[str, Any, Any]]:
    """The settings in which a run's file differs from a configuration: (name, value there, value here).

    Args:
        text: what the file holds. It may name own classes, which no file can bring back: their names are compared.
        where: what a message calls the file.
        config: what is to be run.

    Raises:
        ConfigError: if the file holds no settings.
    """
    there = from_yaml(text, where)
    with suppress(ConfigError):
        there = ExperimentConfig.from_plain(there).to_plain()  # with the defaults of what it leaves out
    return _different(there, config.to_plain())


def _different(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    ours, theirs = flat(one), flat(other)
    return [(name, ours.get(name), theirs.get(name)) for name in ours | theirs if not _same(name, ours, theirs)]


def _same(name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    one, other = ours.get(name), theirs.get(name)
    if name == "stream.path" and isinstance(one, str) and isinstance(other, str):
        return os.path.abspath(one) == os.path.abspath(other)
    return name == "stream.download" or bool(one == other)


def _build(part: str, entry: Any, preset: str, method: AbstractMethod | None) -> Any:
    name, cls, settings = chosen(part, entry)
    whose = part if part == "training" else f"{part} '{name}'"
    missing = first_missing(cls, settings)
    if missing is not None:
        raise ConfigError(
            f"{whose} needs a {missing}; none was given. Add --{part}.{missing}, or {missing} under {part} in a file."
        )
    known = settings_of(cls)
    for setting in settings:
        owners = setting_of(PARTS.get(part, {}), part, setting)
        if setting not in known and owners:
            raise ConfigError(f"{whose} has no setting '{setting}'.{owners}")
    start = {key: value for key, value in starting_values(part, preset, method).items() if key in known}
    built = from_plain(cls, {**start, **settings}, part, whose)
    return replace(built, name=name) if isinstance(built, NetChoice) else built
