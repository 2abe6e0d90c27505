"""What tells series apart in every figure of a recipe: colour and mark, so that neither is needed alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lasem.report.figures.canvas import colour
from lasem.report.numbers import display_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLES = (("blue", "o", "-"), ("orange", "s", "--"), ("green", "^", "-."), ("ink", "D", ":"), ("muted", "v", "-"))
_LETTER = 7.4


def series_style(position: int) -> tuple[str, str, str]:
    """Colour, mark and line of the series at a position; after five they come again."""
    name, mark, line = _STYLES[position % len(_STYLES)]
    return colour(name), mark, line


def draw_key(axes: Axes, names: Sequence[str], above: float, *, hollow: str = "", first: int = 0) -> None:
    """Name the series above the axes, side by side.

    Args:
        axes: the axes.
        names: of the series in their order.
        above: pixels above the axes.
        hollow: what a mark that is not filled means; empty: there is none.
        first: position of the first of these series.
    """
    style: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
    x = 0.0
    for position, name in enumerate(names, start=first):
        shade, mark, _ = series_style(position)
        _draw_mark(axes, x + 4, above, shade, mark, filled=True)
        text = display_name(name, 28)
        axes.annotate(text, (0, 1), (x + 14, above), va="center", color=shade, weight=700, **style)
        x += 34 + _LETTER * len(text)
    if hollow:
        _draw_mark(axes, x + 4, above, colour("muted"), "o", filled=False)
        axes.annotate(hollow, (0, 1), (x + 14, above), va="center", color=colour("muted"), **style)


def _draw_mark(axes: Axes, x: float, above: float, shade: str, mark: str, *, filled: bool) -> None:
    from matplotlib.transforms import ScaledTranslation

    # pixels are points here, for a figure has 72 of them to the inch
    place = axes.transAxes + ScaledTranslation(x / 72, above / 72, axes.figure.dpi_scale_trans)
    axes.plot(
        [0],
        [1],
        marker=mark,
        markersize=7,
        color=shade,
        markerfacecolor=shade if filled else colour("paper"),
        markeredgecolor=shade,
        markeredgewidth=1.5,
        linestyle="none",
        transform=place,
        clip_on=False,
    )
