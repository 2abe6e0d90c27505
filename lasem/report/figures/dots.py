"""Rows of dots on one scale."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lasem.report.figures import Drawing, colour, figure_style, new_figure
from lasem.report.figures.bars import add_legend, label_rows
from lasem.report.numbers import Unit, display_name

SERIES = (("blue", "o", "-"), ("orange", "s", "--"), ("green", "^", "-."), ("ink", "D", ":"), ("muted", "v", "-"))
"""Colour, marker and line of the series of a figure, so that colour is never needed alone."""


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
    """With ``most``: a range that is drawn as a bar below the marker."""
    most: float | None = None


@figure_style()
def draw_dots(name: str, dots: Sequence[Dot], *, axis: str, caption: str, unit: Unit) -> Drawing | None:
    """Draw the rows in the order in which they come, a marker for each series; None if there is no number.

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
    row_height = max(30, 13 * len(series) + 8)
    figure, axes = new_figure(820, row_height * len(rows) + 86)
    for position, one in enumerate(series):
        shade, marker, _ = SERIES[position % len(SERIES)]
        mine = [dot for dot in known if dot.series == one]
        y = np.array([rows.index(dot.row) for dot in mine])
        y = y + (position - (len(series) - 1) / 2) * 12 / row_height
        ends = [[math.nan if end is None else end for end in (dot.least, dot.most)] for dot in mine]
        axes.hlines(y, *(unit.scale * np.array(ends).reshape(-1, 2).T), color=colour("line"), linewidth=9, zorder=2)
        axes.errorbar(
            [unit.scale * dot.mean for dot in mine],
            y,
            xerr=[unit.scale * dot.deviation for dot in mine],
            label=display_name(one, 28),
            color=colour(shade),
            marker=marker,
            markeredgecolor=colour("paper"),
            linestyle="none",
            elinewidth=1.5,
            zorder=4,
        )
        there = [math.nan if dot.published is None else unit.scale * dot.published for dot in mine]
        axes.plot(there, y, marker, markerfacecolor=colour("paper"), markeredgecolor=colour(shade), zorder=3)
    published = any(dot.published is not None for dot in known)
    if published:
        axes.errorbar([], [], fmt="o", markerfacecolor="none", color=colour("muted"), label="published")
    label_rows(axes, rows)
    axes.margins(x=0.06)
    axes.set_xlabel(axis)
    if published or len(series) > 1:
        add_legend(figure, max(9, *map(len, series)), 820)
    several = len(series) > 1
    return Drawing.of(
        figure,
        name,
        ("row", "series", "mean", "deviation", "published", "least", "most"),
        tuple(
            (d.row, d.series, d.mean, d.deviation if d.deviation == d.deviation else None, d.published, d.least, d.most)
            for d in known
        ),
        caption=caption,
        description=f"{axis}: "
        + "; ".join(f"{dot.row}{f', {dot.series}' if several else ''}: {unit(dot.mean)}" for dot in known)
        + ".",
    )
