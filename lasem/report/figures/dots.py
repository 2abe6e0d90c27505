"""Rows of marks on one scale: a row for each method, a mark for each series, what was published beside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lasem.report.figures.canvas import add_axes, colour, figure_style, new_figure, save_svg
from lasem.report.figures.drawing import Drawing
from lasem.report.figures.series import draw_key, series_style
from lasem.report.numbers import Unit, display_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _TOP, _BOTTOM, _ROW = 820, 46, 46, 30


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One number."""

    row: str
    series: str
    mean: float
    """NaN is not drawn."""
    deviation: float = math.nan
    """NaN: of one seed only."""
    published: float | None = None
    least: float | None = None
    """With ``most``: a range that is drawn as a bar behind the mark."""
    most: float | None = None


def draw_dots(
    name: str,
    dots: Sequence[Dot],
    *,
    axis: str,
    caption: str,
    unit: Unit,
) -> Drawing | None:
    """Draw the rows in the order in which they come; None if there is no number.

    Args:
        name: stem of the file names.
        dots: the numbers.
        axis: what the scale says, with its unit.
        caption: how to read it.
        unit: what numbers are drawn in, and written in the description.
    """
    known = [dot for dot in dots if math.isfinite(dot.mean)]
    if not known:
        return None
    rows, series = list(dict.fromkeys(dot.row for dot in dots)), list(dict.fromkeys(dot.series for dot in dots))
    labels = [display_name(row, 36) for row in rows]
    left = 26 + max(70, round(7 * max(map(len, labels))))
    row_height = max(_ROW, 13 * len(series) + 8)
    tall = row_height * len(rows)
    with figure_style():
        figure = new_figure(_WIDTH, _TOP + tall + _BOTTOM)
        axes = add_axes(figure, left, _TOP, _WIDTH - left - 22, tall)
        for position in range(len(rows)):
            axes.axhline(position, color=colour("faint"), linewidth=1, zorder=1)
        for dot in known:
            shift = (series.index(dot.series) - (len(series) - 1) / 2) * 12 / row_height
            _draw_dot(axes, dot, rows.index(dot.row) + shift, series.index(dot.series), unit.scale)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), labels)
        axes.tick_params(axis="y", length=0, pad=12, labelcolor=colour("ink"))
        axes.tick_params(axis="x", length=0, pad=6)
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.06)
        axes.grid(axis="x")
        axes.set_xlabel(axis, loc="left", labelpad=6)
        several = len(series) > 1
        beside = any(dot.published is not None for dot in known)
        draw_key(axes, series if several or beside else [], 22, hollow="published" if beside else "")
        svg = save_svg(figure)
    return Drawing(
        name=name,
        caption=caption,
        description=f"{axis}: "
        + "; ".join(f"{dot.row}{f', {dot.series}' if several else ''}: {unit(dot.mean)}" for dot in known)
        + ".",
        svg=svg,
        width=_WIDTH,
        columns=("row", "series", "mean", "deviation", "published", "least", "most"),
        rows=tuple(
            (d.row, d.series, d.mean, d.deviation if d.deviation == d.deviation else None, d.published, d.least, d.most)
            for d in known
        ),
    )


def _draw_dot(axes: Axes, dot: Dot, y: float, position: int, scale: float) -> None:
    shade, mark, _ = series_style(position)
    mean = scale * dot.mean
    if dot.least is not None and dot.most is not None:
        axes.plot([scale * dot.least, scale * dot.most], [y, y], color=colour("line"), linewidth=9, zorder=2)
    if math.isfinite(dot.deviation):
        spread = scale * dot.deviation
        axes.plot([mean - spread, mean + spread], [y, y], color=shade, linewidth=1.5, zorder=3)
    axes.plot([mean], [y], marker=mark, markersize=7.5, color=shade, markeredgecolor=colour("paper"), zorder=5)
    if dot.published is not None:
        axes.plot(
            [scale * dot.published],
            [y],
            marker=mark,
            markersize=7.5,
            markerfacecolor=colour("paper"),
            markeredgecolor=shade,
            markeredgewidth=1.5,
            zorder=4,
        )
