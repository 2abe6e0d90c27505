"""Lines over a few values on a common axis: a line for each series, its deviation over seeds as bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lasem.report.figures.canvas import add_axes, colour, figure_style, new_figure, save_svg
from lasem.report.figures.drawing import Drawing
from lasem.report.figures.series import draw_key, series_style

_WIDTH, _TOP, _HEIGHT, _BOTTOM, _LEFT = 820, 46, 230, 50, 62


@dataclass(frozen=True, kw_only=True)
class Point:
    """One number of a series."""

    series: str
    x: str
    """A value of the axis, as it is written there; values stand side by side in the order in which they come."""
    mean: float
    deviation: float = math.nan


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
    """Draw the series; None if there is no number.

    Args:
        name: stem of the file names.
        points: the numbers.
        x_axis: what stands side by side.
        y_axis: what a number is, with its unit.
        caption: how to read it.
        scale: what a number is multiplied by.
        reference: where a dotted line goes across, such as what chance would do.
    """
    known = [point for point in points if math.isfinite(point.mean)]
    if not known:
        return None
    series, values = list(dict.fromkeys(p.series for p in known)), list(dict.fromkeys(p.x for p in points))
    rows = 1 + max(0, sum(len(one) * 7.4 + 34 for one in series) > _WIDTH - _LEFT - 20)
    top = _TOP + 20 * (rows - 1)
    with figure_style():
        figure = new_figure(_WIDTH, top + _HEIGHT + _BOTTOM)
        axes = add_axes(figure, _LEFT, top, _WIDTH - _LEFT - 20, _HEIGHT)
        if reference is not None:
            axes.axhline(scale * reference, color=colour("muted"), linewidth=1, linestyle=(0, (1, 3)), zorder=1)
        for position, one in enumerate(series):
            shade, mark, line = series_style(position)
            mine = [point for point in known if point.series == one]
            shift = (position - (len(series) - 1) / 2) * 0.03
            x = [values.index(point.x) + shift for point in mine]
            y = [scale * point.mean for point in mine]
            axes.plot(x, y, color=shade, marker=mark, linestyle=line, linewidth=1.8, markersize=7, zorder=3)
            for place, height, point in zip(x, y, mine, strict=True):
                if math.isfinite(point.deviation):
                    spread = scale * point.deviation
                    axes.plot([place, place], [height - spread, height + spread], color=shade, linewidth=1.2, zorder=2)
        axes.set_xticks(range(len(values)), values)
        axes.tick_params(length=0, pad=6)
        axes.margins(x=0.06, y=0.1)
        low, high = axes.get_ylim()
        if scale == 100:  # a deviation may reach beyond what a share can be
            axes.set_ylim(max(low, -4), min(high, 104))
        axes.grid(axis="y")
        axes.set_xlabel(x_axis, loc="left", labelpad=6)
        axes.set_ylabel(y_axis)
        half = -(-len(series) // rows)
        draw_key(axes, series[:half], 20 * (rows - 1) + 22)
        if rows > 1:
            draw_key(axes, [*series][half:], 22, first=half)
        svg = save_svg(figure)
    return Drawing(
        name=name,
        caption=caption,
        description=f"{y_axis} by {x_axis}. "
        + "; ".join(f"{point.series}, {point.x}: {scale * point.mean:.1f}" for point in known)
        + ".",
        svg=svg,
        width=_WIDTH,
        columns=("series", "x", "mean", "deviation"),
        rows=tuple((p.series, p.x, p.mean, p.deviation if p.deviation == p.deviation else None) for p in known),
    )
