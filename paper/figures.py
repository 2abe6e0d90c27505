"""Figures of the recipes: lines over a few values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lasem.report.figures import Drawing, colour, figure_style, new_figure
from lasem.report.figures.bars import SERIES, add_legend
from lasem.report.numbers import display_name


@dataclass(frozen=True, kw_only=True)
class Point:
    """One number of a series."""

    series: str
    x: str
    """A value of the axis, as it is written there; values are side by side in the order in which they come."""
    mean: float
    deviation: float = math.nan


@figure_style()
def draw_lines(
    name: str,
    points: Sequence[Point],
    *,
    x_axis: str,
    y_axis: str,
    caption: str,
    scale: float = 100.0,
    reference: float | None = None,
) -> Drawing | None:
    """Draw series over a few values on a common axis; None if there is no number.

    Args:
        name: stem of the file names.
        points: the numbers.
        x_axis: what is side by side.
        y_axis: what a number is, with its unit.
        caption: how to read it.
        scale: what a number is multiplied by.
        reference: where a dotted line goes across, such as what chance would do.
    """
    known = [point for point in points if math.isfinite(point.mean)]
    if not known:
        return None
    series, values = list(dict.fromkeys(p.series for p in known)), list(dict.fromkeys(p.x for p in points))
    figure, axes = new_figure(820, 340)
    if reference is not None:
        axes.axhline(scale * reference, color=colour("muted"), linewidth=1, linestyle=":")
    for position, one in enumerate(series):
        shade, marker, dashes = SERIES[position % len(SERIES)]
        mine = [point for point in known if point.series == one]
        axes.errorbar(
            [values.index(point.x) + (position - (len(series) - 1) / 2) * 0.03 for point in mine],
            [scale * point.mean for point in mine],
            [scale * point.deviation for point in mine],
            label=display_name(one, 28),
            color=colour(shade),
            marker=marker,
            linestyle=dashes,
            elinewidth=1.2,
            zorder=3,
        )
    axes.set_xticks(range(len(values)), values)
    axes.margins(x=0.06, y=0.1)
    if scale == 100:  # a deviation may reach beyond what a share can be
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -4), min(high, 104))
    axes.grid(axis="y")
    axes.set_xlabel(x_axis)
    axes.set_ylabel(y_axis)
    add_legend(figure, max(map(len, series)), 820)
    return Drawing.of(
        figure,
        name,
        ("series", "x", "mean", "deviation"),
        tuple((p.series, p.x, p.mean, p.deviation if p.deviation == p.deviation else None) for p in known),
        caption=caption,
        description=f"{y_axis} by {x_axis}. "
        + "; ".join(f"{point.series}, {point.x}: {scale * point.mean:.1f}" for point in known)
        + ".",
    )
