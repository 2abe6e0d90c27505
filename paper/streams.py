"""The streams of the recipes at each scale: data, network and training.

``smoke`` shows in minutes that everything works: stand-ins, small networks, a few epochs. ``small`` has CIFAR-100 and a
smaller Office-Home, the paper's networks and the default settings of this project: a recipe takes hours to a night on
two cores. ``paper`` is what the authors ran.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, final

from lasem.errors import ConfigError, check_choice
from lasem.experiments.methods import with_name

Scale = Literal["smoke", "small", "paper"]
SCALES: Final[tuple[Scale, ...]] = ("smoke", "small", "paper")

SEEDS: Final[dict[str, tuple[int, ...]]] = {"smoke": (0, 1), "small": (0, 1, 2), "paper": (0, 1, 2, 3, 4)}

_Plain = dict[str, Any]

_SMOKE_CIFAR: _Plain = {
    "stream": {
        "name": "cifar100",
        "stand_in": True,
        "classes": "drawn",
        "num_tasks": 3,
        "classes_per_task": 4,
        "train_per_class": 10,
        "test_per_class": 10,
    },
    "net": "digits",
    "training": {"epochs": 3},
}

_STREAMS: Final[dict[str, tuple[str, int, dict[str, _Plain]]]] = {
    "cifar100-10": (
        "CIFAR-100, 10 tasks",
        4,
        {
            "smoke": _SMOKE_CIFAR,
            "small": {"stream": {"name": "cifar100"}, "net": "cifar"},
            "paper": {"stream": {"name": "cifar100"}, "net": "cifar"},
        },
    ),
    "office-home": (
        "Office-Home, 10 tasks",
        4,
        {
            "smoke": {
                "stream": {"name": "office-home", "stand_in": True, "num_tasks": 2, "image_size": 24},
                "net": "digits",
                "training": {"epochs": 2},
            },
            "small": {
                "stream": {"name": "office-home", "image_size": 32, "images_per_class": 20},
                "net": "office-home",
            },
            "paper": {
                "stream": {"name": "office-home"},
                "net": "office-home",
                "training": {
                    "epochs": 1000,
                    "batch_size": 16,
                    "learning_rate": 2e-5,
                    "learning_rate_decay": 1e-4,
                },
            },
        },
    ),
    "stl10": (
        "STL-10, 20 tasks",
        6,
        {
            "paper": {
                "stream": {"name": "stl10"},
                "net": "stl-10",
                "training": {"epochs": 500, "learning_rate_decay": 0.0},
            },
        },
    ),
    "cifar100-10-resnet": (
        "CIFAR-100, 10 tasks, ResNet",
        17,
        {
            "smoke": {
                "stream": {
                    **_SMOKE_CIFAR["stream"],
                    "num_tasks": 2,
                    "classes_per_task": 2,
                    "train_per_class": 5,
                    "valid_per_class": 2,
                    "test_per_class": 5,
                },
                "net": "resnet",
                "training": {"epochs": 1},
            },
            "small": {"stream": {"name": "cifar100"}, "net": "resnet"},
            "paper": {"stream": {"name": "cifar100"}, "net": "resnet"},
        },
    ),
    "cifar100-40-resnet": (
        "CIFAR-100, 40 tasks, ResNet",
        17,
        {"paper": {"stream": {"name": "cifar100", "num_tasks": 40}, "net": "resnet"}},
    ),
}
"""Key -> title, layers that can be transferred, and for each scale that has the stream its settings."""


@final
@dataclass(frozen=True)
class StreamPart:
    """A stream as a recipe uses it."""

    key: str
    """Its folder's name."""
    title: str
    stands_for: str
    """The key of the stream whose published numbers stand beside."""
    depth: int
    """Layers of its network that can be transferred."""
    base: _Plain
    """Stream, network, training, preset, seeds, device and threads, as in a file of settings."""


@final
@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where recipes are run: the scale, and what a person set above it.

    Raises:
        ConfigError: if there is no such scale.
    """

    scale: Scale
    given: Mapping[str, Any]
    """Settings above those of the scale: ``stream`` takes the place of every recipe's own, other parts are merged."""
    depth: int | None = None
    """Layers that the network of a person's own stream has."""
    data: str | None = None
    """Folder that holds a folder for each of the recipes' own streams, by its name; None: ``~/.cache/lasem``."""
    download: bool = False
    """Fetch the recipes' own streams where they are not there."""

    def __post_init__(self) -> None:
        check_choice("scale", self.scale, SCALES)

    @property
    def own_stream(self) -> str | None:
        """The name of the stream that takes the place of the recipes' own."""
        stream = with_name("stream", self.given.get("stream"))
        return str(stream["name"]) if "name" in stream else None

    def streams(self, *keys: str) -> tuple[StreamPart, ...]:
        """The streams of a recipe: those of the keys that the scale has, or a person's own in the place of the first.

        Raises:
            ConfigError: if the scale has none of them.
        """
        if self.own_stream is not None:
            return (self._own(keys[0]),)
        found = tuple(self._part(key) for key in keys if self.scale in _STREAMS[key][2])
        if not found:
            raise ConfigError(f"Scale {self.scale} has no stream of {', '.join(keys)}.")
        return found

    def part(self, key: str, title: str, depth: int, entry: _Plain) -> StreamPart:
        """A stream that is a recipe's own affair, such as a planted one."""
        return StreamPart(key, title, key, depth, self._base(entry))

    def _part(self, key: str) -> StreamPart:
        title, depth, by_scale = _STREAMS[key]
        entry = dict(by_scale[self.scale])
        stream = dict(entry["stream"])
        if not stream.get("stand_in"):
            if self.data is not None:
                stream["path"] = str(Path(self.data) / stream["name"])
            if self.download:
                stream["download"] = True
        return StreamPart(key, title, key, depth, self._base({**entry, "stream": stream}))

    def _own(self, key: str) -> StreamPart:
        title, depth, by_scale = _STREAMS[key]
        entry = {part: value for part, value in by_scale[self.scale].items() if part == "training"}
        if depth == 17:  # the recipe is about this network, on whatever stream
            entry["net"] = "resnet"
        given_depth = depth if depth == 17 or self.depth is None else self.depth
        name = f"{self.own_stream}-resnet" if depth == 17 else str(self.own_stream)
        return StreamPart(name, f"{name} (in the place of {title})", key, given_depth, self._base(entry))

    def _base(self, entry: _Plain) -> _Plain:
        """What is common, the stream's, and what a person gave, in this order."""
        base: _Plain = {
            "preset": "paper" if self.scale == "paper" else "default",
            "seeds": list(SEEDS[self.scale]),
            "threads": 1,  # the same bits on however many workers
            **entry,
        }
        for part, value in self.given.items():
            if part in ("stream", "net", "training"):
                above = with_name(part, value)
                below = with_name(part, base.get(part))
                same = "name" not in above or above.get("name") == below.get("name")
                base[part] = {**below, **above} if same else above
            else:
                base[part] = value
        return base
