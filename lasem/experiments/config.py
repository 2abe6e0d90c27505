"""Everything that decides a run's results, as one frozen object."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from lasem.data import AbstractReader, DigitsReader, TaskStream
from lasem.data.readers import FileReader
from lasem.errors import ConfigError, DataError, nearest
from lasem.experiments.parts import (
    DEFAULT_NAMES,
    METHOD_PARTS,
    AnyNet,
    build_net,
    build_part,
    check_part,
    is_readable,
    part_to_plain,
    resolve,
    with_name,
)
from lasem.methods import AbstractMethod, AbstractProtection, Transfer, Unprotected
from lasem.nets import AbstractNet, ImageShape
from lasem.nets.net import AUTO, Backbone, Encoder, NetChoice, pretrained_for
from lasem.search import EM, AbstractSelection, Evidence
from lasem.settings import (
    Range,
    Settings,
    check_choice,
    flat,
    from_yaml,
    read_value,
    settings_of,
    to_plain,
    to_yaml,
)
from lasem.sharing import AbstractSharing, HardSharing
from lasem.training import EARLIER, TrainingConfig

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "default": {},
    "paper": {
        "stream": {"standardise": "split", "rounded": False},
        "net": {"among": "paper", "initial": "paper", "pool_border": "both"},
        "sharing": {"start": "glorot", "step_scale": 1.0, "factors_start": "fresh", "max_rank": 512},
        "search": {
            "likelihood": "mean",
            "prior_form": "average",
            "prior_start": [0.5, 0.5],
            "ties": "transfer",
            "first_task": "search",
            "commit_probability": 2.0,  # never
            "commit_share": 1.0,
            "alpha_split": "train",
            "alpha_optimiser": "rmsprop-tf",
            "alpha_learning_rate": None,
            "alpha_weight_decay": 0.0,
        },
        "training": {
            "epochs": 2000,
            "batch_size": 10,
            "drop_last": True,
            "augment": "none",
            "optimiser": "rmsprop-tf",
            "learning_rate": 1e-4,
            "schedule": "inverse",
            "learning_rate_decay": 1 / 4000,
            "patience": 0,
            "restore_best": False,
            "tolerance": 0.0,
            "specific_start": "fresh",
            "specific_shrink": 1.0,
        },
    },
}
"""``default``: what a person should use, the settings' own defaults. ``paper``: LASEM as its authors
ran it on CIFAR-100 (Lee, Behpour, Eaton, ICML 2021), for reproduction. Settings of baselines are not among them."""

_TOGETHER: dict[str, list[tuple[dict[str, str], str, dict[str, Any]]]] = {
    "default": [],
    "paper": [
        ({"search": "exhaustive"}, "search", {"form": "paper", "first_task": "all"}),
        ({"search": "exhaustive", "sharing": "hps"}, "search", {"first_task": "none"}),
        *(
            ({**stl10, "sharing": sharing}, part, settings)
            for stl10 in ({"net": "stl-10"}, {"net": "auto", "stream": "stl10"})
            for sharing, part, settings in (("tf", "net", {"hidden": [128]}), ("dfcnn", "sharing", {"sizes": "stl-10"}))
        ),
    ],
}
"""What presets have for parts of these names together: names by part, the part that is set, and settings."""


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig(Settings):
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
    seeds: tuple[Annotated[int, Range(least=0)], ...] = (0,)
    """One run of the whole stream for each; the seed draws the tasks and all initial weights."""
    stream_seed: Annotated[int, Range(least=0)] | None = None
    """Seed that draws the tasks for every one of ``seeds``, which then differ in weights and order of images alone;
    None: the run's own seed draws them."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, ..."""
    threads: Annotated[int, Range(least=0, most=1024)] = 0
    """Threads of a CPU to compute with; 0: as torch chooses. With very many the system ends the process."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "seeds", tuple(self.seeds))
        super().__post_init__()
        check_choice("preset", self.preset, PRESETS)
        if not self.seeds:
            raise ConfigError("seeds must hold at least one seed; got none.")
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds must differ from each other; got {', '.join(map(str, self.seeds))}.")
        if isinstance(self.net, Backbone | Encoder) and isinstance(self.stream, FileReader):
            object.__setattr__(self, "stream", _read_for(self.net, self.stream))
        if self.method is not None:  # baselines look into the layers of plain networks
            object.__setattr__(self, "net", among_paper(self.net))
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
        """The parts that no file brings back: networks, what holds tensors, and classes that cannot be imported."""
        return tuple(part for part in self.parts if not is_readable(part, getattr(self, part)))

    def open_stream(self, seed: int) -> TaskStream:
        """Open the stream for the run of a seed; errors as of ``AbstractReader.open``."""
        return self.stream.open(seed if self.stream_seed is None else self.stream_seed)

    def build_net(self, image_shape: ImageShape) -> AbstractNet:
        """Return the network for images of (channels, height, width); ConfigError if there is none."""
        return build_net(self.net, image_shape)

    def to_plain(self) -> dict[str, Any]:
        """Every setting as YAML and JSON can hold it; ``from_plain`` gives back an equal object, own classes apart.

        ConfigError if a network's description or a field holds what no file can.
        """
        plain = {part: part_to_plain(part, getattr(self, part)) for part in self.parts}
        for unused in self.method.unused if self.method is not None else ():
            plain["training"].pop(unused, None)
        return {
            "preset": self.preset,
            **plain,
            "seeds": list(self.seeds),
            "stream_seed": self.stream_seed,
            "device": self.device,
            "threads": self.threads,
        }

    @classmethod
    def from_plain(cls, entry: Mapping[str, Any]) -> "ExperimentConfig":
        """Build from plain values. What is not given comes from the preset, and what that leaves open from defaults.

        ``method`` may also be a shorthand for sharing and search; see ``lasem.experiments.parts``.

        Raises:
            ConfigError: if a name is unknown (the nearest known one is named), a value is not what it must be, or the
                method does not use what is set.
        """
        known = settings_of(cls)
        for name in entry:
            if name not in known:
                raise ConfigError(
                    f"There is no setting '{name}' (there are: {', '.join(known)}).{nearest(name, known)}"
                )
        preset = read_value(entry.get("preset", "default"), str, "preset")
        check_choice("preset", preset, PRESETS)
        plain = {
            name: read_value(entry[name], known[name], name)
            for name in ("seeds", "stream_seed", "device", "threads")
            if name in entry
        }
        entry = resolve(entry)
        parts: dict[str, Any] = {}
        for part in parts_used("method" in entry):
            start = starting_values(part, preset, parts.get("method"), entry)
            net = parts.get("net")
            if isinstance(net, Backbone | Encoder) and net.pretrained is not False:
                # what is transferred stays as it is, so that nothing is forgotten, and is computed once
                start |= {"train_shared": False} if part == "sharing" else {}
                if part == "search" and "search" not in entry:
                    entry, start = {**entry, "search": {"name": Evidence.name}}, {}
            parts[part] = build_part(part, entry.get(part), start)
        return cls(preset=preset, **parts, **plain)

    def to_yaml(self) -> str:
        """Every setting as YAML."""
        return to_yaml(self.to_plain())

    @classmethod
    def from_yaml(cls, text: str, where: str = "the configuration") -> "ExperimentConfig":
        """Read what ``to_yaml`` wrote, or a part of it that a person wrote; see ``from_plain``."""
        return cls.from_plain(from_yaml(text, where))


def suited(
    entry: Mapping[str, Any], build: Callable[[Mapping[str, Any]], Mapping[str, ExperimentConfig]]
) -> tuple[Mapping[str, Any], str]:
    """Return settings that name the pretrained network where ``auto`` means it, and what a person should know.

    It does so for files of more than 40 pixels a side, if the network is installed, the settings say nothing else of
    it, and every method takes it. Streams of benchmarks keep the network that they are compared with.

    Args:
        entry: plain settings.
        build: makes of such settings every method's, by name; errors as of ``ExperimentConfig.from_plain``.
    """
    stream = next(iter(build(entry).values())).stream
    bare = with_name("net", entry.get("net")) in ({}, {"name": AUTO}) and entry.get("preset", "default") == "default"
    if not bare or not isinstance(stream, FileReader) or stream.channels != 3:
        return entry, ""
    try:
        sizes = replace(stream, skip_damaged=False).labelled().first_sizes()
    except DataError:  # so says the run
        return entry, ""
    backbone, _ = pretrained_for(max(max(size) for size in sizes))
    if backbone is None:  # what could be had is said by the run
        return entry, ""
    found, net = {**entry, "net": {"name": backbone.name}}, backbone((3, *sizes[-1]))
    for name, config in build(found).items():
        method = config.method or Transfer(sharing=config.sharing, search=config.search, protect=config.protect)
        if not takes(method, net, config.training):
            return entry, f"Network: a small one, which learns from the start, for {name} takes no pretrained one."
    return found, ""


def takes(method: AbstractMethod, net: AbstractNet, training: TrainingConfig) -> bool:
    """Return whether a method can learn with a network."""
    try:
        method.check(net, training)
    except ConfigError:
        return False
    return True


def among_paper(net: AnyNet) -> AnyNet:
    """Return the choice of a network among the paper's, if none is named."""
    return replace(net, among="paper") if isinstance(net, NetChoice) and net.name == AUTO else net


def _read_for(net: Backbone | Encoder, stream: FileReader) -> FileReader:
    """Return a reader whose images are as a pretrained network expects them, where it does not say otherwise."""
    expected = net.preprocessing
    size, crop, kind = stream.image_size, stream.crop, stream.interpolation
    if expected is None or (size is not None and crop is not None):
        return stream
    return replace(
        stream,
        image_size=expected.side if size is None else size,
        crop=expected.crop if crop is None else crop,
        interpolation=expected.interpolation if kind == "bilinear" else kind,
    )


def parts_used(baseline: bool) -> tuple[str, ...]:
    """The parts of a baseline's settings, or of any other run's, in the order in which they are written."""
    return ("stream", "net", *(("method",) if baseline else METHOD_PARTS), "training")


def starting_values(
    part: str, preset: str, method: AbstractMethod | type[AbstractMethod] | None, entry: Mapping[str, Any]
) -> dict[str, Any]:
    """What a part starts from below explicit settings: the preset, and for training what a baseline needs above it.

    ``entry`` holds what is said of all parts.
    """
    values = dict(PRESETS[preset].get(part, {}))
    for names, of, settings in _TOGETHER[preset]:
        named = {other: with_name(other, entry.get(other)).get("name", DEFAULT_NAMES[other]) for other in names}
        values |= settings if of == part and named == names else {}
    if part == "training" and method is not None:
        values = {name: value for name, value in values.items() if name not in method.unused} | dict(method.training)
    return values


def stored_settings(text: str, where: str) -> dict[str, Any]:
    """Return a run's settings; what earlier versions lack is what all runs had then. ConfigError if there are none."""
    entry = from_yaml(text, where)
    net = with_name("net", entry.get("net"))
    net = {"among": "paper", **net} if net.get("name", AUTO) == AUTO else net
    return {**entry, "net": net, "training": EARLIER | with_name("training", entry.get("training"))}


def stored_differences(text: str, where: str, config: ExperimentConfig) -> list[tuple[str, Any, Any]]:
    """Compare a run's file with a configuration: (name, value there, value here); ConfigError if it has no settings.

    Of own classes, which no file can bring back, the names are compared.
    """
    there = stored_settings(text, where)
    with suppress(ConfigError):
        there = ExperimentConfig.from_plain(there).to_plain()  # with the defaults of what it leaves out
    return differences(there, config.to_plain())


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """The plain settings in which two configurations differ: (name, value in the one, value in the other).

    Settings that come to the same do not: one folder by two paths, and whether data were to be fetched that are there.
    """
    ours, theirs = flat(one), flat(other)
    return [(name, ours.get(name), theirs.get(name)) for name in ours | theirs if not _same(name, ours, theirs)]


def _same(name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    one, other = ours.get(name), theirs.get(name)
    if name == "stream.path" and isinstance(one, str) and isinstance(other, str):
        return os.path.abspath(one) == os.path.abspath(other)
    if name == "stream.classes_per_task" and {one, other} == {None, 10}:
        return True  # what was the default before it depended on the data
    return name == "stream.download" or bool(one == other)
