"""What a recipe is: a grid of runs, and how its page is drawn from their records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from lasem.experiments.comparison import ComparedMethod, compared_methods
from paper.runs import PanelRuns
from paper.streams import Scale, Stream
from paper.table import Section

SHARING_TITLES: Final = {"hps": "HPS", "tf": "TF", "dfcnn": "DF-CNN"}
NO_RUN: Final = "No run is finished yet."
"""What a page says before it has anything to say."""


@final
@dataclass(frozen=True)
class Panel:
    """One stream's part of a recipe: methods that are compared on it. Its runs may be other recipes' as well."""

    stream: Stream
    methods: tuple[ComparedMethod, ...]


@final
@dataclass(frozen=True, kw_only=True)
class Findings:
    """The result of a recipe."""

    verdict: str
    """In plain words."""
    sections: Sequence[Section]
    """In the order of the page."""


@final
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A table or figure of the paper, from nothing."""

    name: str
    title: str
    about: str
    """What is asked, and what was published of it."""
    panels: Callable[[Scale], tuple[Panel, ...]]
    """The grid of runs."""
    draw: Callable[[Sequence[PanelRuns]], Findings]
    """What the runs show, from records alone."""
    only_stream: str | None = None
    """The one stream that it is about; None: a person's own may take the place of its streams."""

    def serves(self, scale: Scale) -> bool:
        """Whether the stream that takes the place of the recipes' own, if one does, can be learned here."""
        return self.only_stream is None or scale.own_stream in (None, self.only_stream)


def panel(stream: Stream, names: Sequence[str], entries: Sequence[Mapping[str, Any]] = ()) -> Panel:
    """Put methods on a stream.

    Args:
        stream: the stream.
        names: methods by name, which is their label too.
        entries: methods with settings of their own; see ``compared_methods``.

    Raises:
        ConfigError: if a method does not fit.
    """
    return Panel(stream, compared_methods(stream.base, (), [*({"name": name} for name in names), *entries]))


def verdict(what: str, said: Sequence[str]) -> str:
    """Join what was said of each stream and mechanism in one sentence."""
    return f"{what}: {'; '.join(said)}." if said else NO_RUN


def with_sharing(names: Sequence[str]) -> list[str]:
    """Each name for each mechanism, such as ``top-2-tf``."""
    return [f"{name}-{sharing}" for sharing in SHARING_TITLES for name in names]
