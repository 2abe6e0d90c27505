"""The streams of the recipes at each scale: data, network and training.

``smoke`` shows in minutes that everything works: digits in place of photographs, small networks, a few epochs.
``small`` has CIFAR-100 and a smaller Office-Home, the paper's networks and the default settings of this project: a
recipe takes hours to nights on two cores. ``paper`` is what the authors ran.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal, final

import yaml

from lasem.errors import ConfigError
from lasem.experiments import ExperimentConfig
from lasem.experiments.parts import with_name
from lasem.settings import check_choice

ScaleName = Literal["smoke", "small", "paper"]
SCALES: Final[tuple[ScaleName, ...]] = ("smoke", "small", "paper")
SEEDS: Final[dict[str, tuple[int, ...]]] = {"smoke": (0, 1), "small": (0, 1, 2), "paper": (0, 1, 2, 3, 4)}

_Plain = dict[str, Any]

_STREAMS: Final[dict[str, _Plain]] = yaml.safe_load((files("paper") / "streams.yaml").read_text(encoding="utf-8"))
_NET: Final[_Plain] = {"name": "auto", "among": "paper"}


@final
@dataclass(frozen=True)
class Stream:
    """A stream as a recipe uses it."""

    key: str
    """Its folder's name."""
    title: str
    stands_for: str
    """The key of the stream whose published numbers are shown."""
    depth: int
    """Layers of its network that can be transferred."""
    base: _Plain
    """Stream, network, training, preset, seeds, device and threads, as in a file of settings."""


@final
@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large the runs of the recipes are: the scale's name, and what a person set above it.

    Raises:
        ConfigError: if there is no such scale.
    """

    name: ScaleName
    given: Mapping[str, Any]
    """Settings above those of the scale: ``stream`` takes the place of every recipe's own, other parts are merged."""
    data: str | None = None
    """Folder that holds a folder for each of the recipes' own streams, by its name; None: ``~/.cache/lasem``."""
    download: bool = False
    """Fetch the recipes' own streams where they are not there."""

    def __post_init__(self) -> None:
        check_choice("scale", self.name, SCALES)

    @property
    def own_stream(self) -> str | None:
        """The name of the stream that takes the place of the recipes' own."""
        name = with_name("stream", self.given.get("stream")).get("name")
        return None if name is None else str(name)

    @cached_property
    def own_depth(self) -> int:
        """Layers that the network of a person's own stream has.

        Raises:
            LasemError: if the stream cannot be opened, or there is no network for its images.
        """
        config = ExperimentConfig.from_plain(
            {"net": _NET} | {part: self.given[part] for part in ("stream", "net") if part in self.given}
        )
        return config.build_net(next(iter(config.stream.open(0))).image_shape).depth

    def streams(self, *keys: str) -> tuple[Stream, ...]:
        """Return the streams of the keys that the scale has, or a person's own in the place of the first.

        Raises:
            ConfigError: if the scale has none of them.
        """
        if self.own_stream is not None:
            return (self._own(self.own_stream, keys[0]),)
        found = tuple(self._known(key) for key in keys if self.name in _STREAMS[key])
        if not found:
            raise ConfigError(f"Scale {self.name} has no stream of {', '.join(keys)}.")
        return found

    def stream(self, key: str, title: str, depth: int, settings: _Plain) -> Stream:
        """Make a stream that belongs to one recipe alone."""
        return Stream(key, title, key, depth, self._base(settings))

    def _known(self, key: str) -> Stream:
        """Return a stream, or the one whose file is there if its own folder is not."""
        folder = Path(self.data or "")
        for other, known in _STREAMS.items():
            here = self.data is not None and known.get("in_place_of") == key and self.name in known
            if here and (file := folder / known["file"]).exists() and not (folder / key).exists():
                settings = {**known[self.name], "stream": {**known[self.name]["stream"], "path": str(file)}}
                return Stream(other, known["title"], key, known["depth"], self._base(settings))
        known = _STREAMS[key]
        stream = dict(known[self.name]["stream"])
        if self.name != "smoke":
            if self.data is not None:
                stream["path"] = str(Path(self.data) / str(stream.get("source", stream["name"])))
            if self.download and "source" not in stream:  # a stream of another one's images, which that one fetches
                stream["download"] = True
        return self.stream(key, known["title"], known["depth"], {**known[self.name], "stream": stream})

    def _own(self, name: str, key: str) -> Stream:
        known = _STREAMS[key]
        settings = {part: value for part, value in known[self.name].items() if part == "training"}
        depth = known["depth"]
        if key.endswith("-resnet"):  # the recipe is about this network, on any stream
            name, settings["net"] = f"{name}-resnet", "resnet"
        else:
            depth = self.own_depth
        return Stream(name, f"{name} (in the place of {known['title']})", key, depth, self._base(settings))

    def _base(self, settings: _Plain) -> _Plain:
        """Merge what is common, the stream's settings, and what a person gave, in this order."""
        base: _Plain = {
            "preset": "paper" if self.name == "paper" else "default",
            "seeds": list(SEEDS[self.name]),
            "threads": 1,  # the same bits on any number of workers
            "net": _NET,
            **settings,
        }
        for part, value in self.given.items():
            if part in ("stream", "net", "training"):
                above, below = with_name(part, value), with_name(part, base.get(part))
                same = above.get("name", below.get("name")) == below.get("name")
                base[part] = {**below, **above} if same else above
            else:
                base[part] = value
        return base
