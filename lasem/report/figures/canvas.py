"""Where figures are drawn: one look, sizes in pixels, the same bytes every time.

Matplotlib's global settings are changed only for as long as a drawing takes, and importing this imports no matplotlib.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# name -> (on a light page, on a dark page). The light one is drawn; the page exchanges it for a CSS variable, so no two
# may be equal. Hues are Okabe's and Ito's, which colour-blind readers can tell apart, lightened for the dark page.
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
_RAMP = (
    ("#440154", "#2c748e"),
    ("#481b6d", "#2a8290"),
    ("#46337f", "#218e8d"),
    ("#3f4889", "#1e9b8a"),
    ("#365d8d", "#22a884"),
    ("#2d708e", "#31b67c"),
    ("#26818e", "#48c16e"),
    ("#20928c", "#65cb5e"),
    ("#20a386", "#84d44b"),
    ("#31b57b", "#a8db34"),
    ("#52c569", "#cde11d"),
    ("#7ad151", "#f1e51d"),
)  # viridis: its darker part on a light page, its lighter part on a dark one
COLOURS |= {f"ramp-{step}": pair for step, pair in enumerate(_RAMP)}

_MONO = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"
_SANS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def colour(name: str) -> str:
    """The colour to draw with."""
    return COLOURS[name][0]


def ramp(position: int, num: int) -> str:
    """The colour of the ``position``-th of ``num`` things that have an order, dark to light."""
    return colour(f"ramp-{round(position / (num - 1) * (len(_RAMP) - 1)) if num > 1 else 3}")


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw and save inside this: our settings whatever the user's are, restored afterwards."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        # a name in a script that our font lacks is measured wrongly, but written as text and shown well
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.fonttype": "none",  # text stays text
                "svg.hashsalt": "lasem",
                "text.parse_math": False,  # a task may be called "$x_{"
                "font.size": 11,
                "text.color": colour("ink"),
                "axes.edgecolor": colour("line"),
                "axes.labelcolor": colour("muted"),
                "xtick.color": colour("line"),
                "ytick.color": colour("line"),
                "xtick.labelcolor": colour("muted"),
                "ytick.labelcolor": colour("muted"),
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.grid.axis": "y",
                "grid.color": colour("faint"),
                "axes.axisbelow": True,
                "lines.solid_capstyle": "round",
                "lines.solid_joinstyle": "round",
            }
        )
        yield


def new_figure(width: int, height: int) -> Figure:
    """An empty figure of that many pixels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / 72, height / 72), dpi=72, facecolor=colour("paper"))


def add_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place given in pixels from the figure's upper left corner."""
    total_width, total_height = figure.get_size_inches() * 72
    return figure.add_axes(
        (left / total_width, 1 - (top + height) / total_height, width / total_width, height / total_height),
        facecolor="none",
    )


def add_grid_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes without a frame whose units are pixels, y downwards: for tables of cells."""
    axes = add_axes(figure, left, top, width, height)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")
    return axes


def label_width(names: Sequence[str]) -> int:
    """Room to the left of a table of cells for its rows' names and numbers."""
    return max(150, 56 + round(7.2 * max(len(name) for name in names)))


def save_svg(figure: Figure) -> str:
    """The figure as an SVG file without a date, in the reader's own fonts."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = re.sub(r"font-family: 'DejaVu Sans Mono'[^;\"]*", f"font-family: {_MONO}", buffer.getvalue())
    svg = re.sub(r"font-family: 'DejaVu Sans'[^;\"]*", f"font-family: {_SANS}", svg)
    return re.sub(r' transform="rotate\(-0 [^)]*\)"', "", svg)


def thin(num: int, keep: Sequence[int] = (), most: int = 160) -> list[int]:
    """At most about ``most`` of the indices 0 to ``num - 1``, evenly spread, the ends and ``keep`` among them."""
    step = max(1, -(-num // most))
    return sorted({*range(0, num, step), num - 1, *(k for k in keep if 0 <= k < num)}) if num else []
