"""Figures of five kinds (heatmap, lines, dots, bars, tree), and the look that they have in common.

A function that draws a run returns a Drawing, or None if there is nothing to draw. Importing this imports no
matplotlib, whose global settings are changed only while a figure is drawn.
"""

import io
import re
import warnings
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lasem.metrics import Run
from lasem.report.frame import to_csv, write_text
from lasem.report.numbers import display_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAGE_WIDTH = 908
"""Pixels that a figure has on a page."""

COLOURS: dict[str, tuple[str, str]] = {
    "paper": ("#ffffff", "#181e25"),
    "ink": ("#1c2733", "#e4eaf0"),
    "muted": ("#5b6875", "#9fabb7"),
    "line": ("#cfd6dd", "#3a444f"),
    "faint": ("#e9edf0", "#262e37"),
    "rest": ("#b4bdc6", "#56616d"),
    "blue": ("#0072b2", "#56b4e9"),
    "orange": ("#c4560b", "#f0954a"),
    "green": ("#00875f", "#2fc99a"),
}
"""Name to the colour on a light page, with which figures are drawn, and on a dark one; no two light ones are equal. The
hues are Okabe's and Ito's, which colour-blind readers can distinguish, lightened for the dark page."""

# viridis: its darker part on a light page, its lighter part on a dark one
_RAMP = (
    "440154-2c748e 481b6d-2a8290 46337f-218e8d 3f4889-1e9b8a 365d8d-22a884 2d708e-31b67c "
    "26818e-48c16e 20928c-65cb5e 20a386-84d44b 31b57b-a8db34 52c569-cde11d 7ad151-f1e51d"
)
_NUM_SHADES = 12
COLOURS |= {f"ramp-{n}": (f"#{pair[:6]}", f"#{pair[7:]}") for n, pair in enumerate(_RAMP.split())}

Row = tuple[object, ...]
Columns = tuple[str, ...]


@dataclass(frozen=True)
class Drawing:
    """One figure, not yet written anywhere."""

    name: str
    """Stem of its file names, for instance ``seed-0-accuracy-matrix``."""
    caption: str
    """How to read it."""
    description: str
    """What it shows, for readers who cannot see it."""
    svg: str
    """The whole SVG file, for a white page."""
    width: int
    """Natural width in pixels."""
    columns: Columns
    rows: tuple[Row, ...]
    """The data drawn: accuracies as fractions, names as recorded."""

    @classmethod
    def of(
        cls, figure: "Figure", name: str, columns: Columns, rows: Iterable[Row], *, caption: str, description: str
    ) -> "Drawing":
        """Save a figure as SVG, without a date: the same bytes every time."""
        buffer, width = io.StringIO(), round(figure.get_figwidth() * 72)
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        return cls(name, caption, description, buffer.getvalue(), width, columns, tuple(rows))

    @classmethod
    def of_run(
        cls, figure: "Figure", run: Run, key: str, columns: Columns, rows: Iterable[Row], about: str, **facts: str
    ) -> "Drawing":
        """Save a seed's figure; ``key`` is the name of its caption, ``facts`` are what differs there."""
        text = caption(key, **facts)
        return cls.of(figure, f"seed-{run.seed}-{key}", columns, rows, caption=text, description=about)

    @property
    def least_width(self) -> int:
        """The width in pixels below which it scrolls, because it would be illegible."""
        return self.width if self.width > PAGE_WIDTH + 12 else min(self.width, 640)

    def write(self, folder: Path) -> None:
        """Write it as SVG, and its data as CSV; StorageError if a file cannot be written."""
        write_text(folder / f"{self.name}.svg", self.svg)
        write_text(folder / f"{self.name}.csv", to_csv(self.columns, self.rows))

    def csv_address(self) -> str:
        """Its data as an address that holds them, for a page that is the only file."""
        data = to_csv(self.columns, self.rows).encode(errors="replace")
        return f"data:text/csv;base64,{b64encode(data).decode()}"

    def inline(self) -> str:
        """The SVG for a page: colours that follow light and dark, no fixed size, fonts of the page, ids of its own."""
        body = re.sub(r"<style.*?</style>", "", self.svg.partition("<svg")[2].partition(">")[2], flags=re.DOTALL)
        view_box = re.search(r'viewBox="[^"]*"', self.svg)
        # tags only: between them are names from the user's data, which stay as they are
        body = re.sub(r"<[^>]*>", lambda tag: self._for_page(tag[0]), body)
        label = escape(display_name(self.description))
        return f'<svg {view_box[0] if view_box else ""} role="img" aria-label="{label}">{body}'

    def _for_page(self, tag: str) -> str:
        for name, (light, _) in COLOURS.items():
            tag = tag.replace(light, f"var(--{name})")
        tag = tag.replace("xlink:href", "href")
        tag = re.sub(r'(id="|"#|\(#)', rf"\g<1>{self.name}-", tag)  # a reference into a hidden figure draws nothing
        # a hundredth of a pixel is enough, and half the bytes
        return re.sub(r"(\.\d\d)\d+", r"\1", tag)


def caption(figure: str, **differing: str) -> str:
    """How to read a figure, from ``captions.yaml``."""
    written: str = yaml.safe_load(files(__name__).joinpath("captions.yaml").read_text("utf-8"))[figure]
    return written.format(**differing)


def in_words(tasks: Iterable[tuple[str, str, int | None]]) -> str:
    """What was chosen for each task, and at which epoch the search had committed, for descriptions."""
    return "; ".join(
        f"{display_name(task, 40)}: {chosen}{f', committed at epoch {epoch}' if epoch is not None else ''}"
        for task, chosen, epoch in [*tasks][:40]
    )


def colour(name: str) -> str:
    """The colour to draw with."""
    return COLOURS[name][0]


def ramp(position: int, num: int) -> str:
    """The colour of the ``position``-th of ``num`` things that have an order, dark to light."""
    return colour(f"ramp-{round(position / (num - 1) * (_NUM_SHADES - 1)) if num > 1 else 3}")


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw and save inside this: our style in place of the user's, which is restored afterwards."""
    import matplotlib.style

    with matplotlib.style.context(["default", f"{__name__}.lasem"]), warnings.catch_warnings():
        # a name in a script that our font lacks is measured wrongly, but written as text and shown well
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def new_figure(width: float, height: float, **grid: Any) -> "tuple[Figure, Any]":
    """An empty figure of that many pixels, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72))
    return figure, figure.subplots(**grid)


def new_panels(num: int, num_columns: int, width: float, heights: Sequence[float]) -> "tuple[Figure, list[Axes]]":
    """A figure of ``num`` panels, row by row; ``heights`` is of each row, in pixels like ``width``."""
    grid = {"nrows": len(heights), "ncols": num_columns, "squeeze": False, "height_ratios": heights}
    figure, panels = new_figure(width, sum(heights), **grid)
    for unused in panels.flat[num:]:
        unused.remove()
    return figure, list(panels.flat[:num])


def thin(num: int, keep: Sequence[int] = (), most: int = 160) -> list[int]:
    """At most about ``most`` of the indices 0 to ``num - 1``, evenly spread, the ends and ``keep`` among them."""
    step = max(1, -(-num // most))
    return sorted({*range(0, num, step), num - 1, *(k for k in keep if 0 <= k < num)}) if num else []
