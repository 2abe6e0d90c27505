"""Dots: methods side by side, a row each, with bars for their cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lasem.metrics import Statistic
from lasem.report.figures import PAGE_WIDTH, Drawing, colour, figure_style, new_figure
from lasem.report.numbers import display_name, duration, percent, short_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COMPARED = ("peak_accuracy", "final_accuracy", "parameters_total", "seconds_training")


@figure_style()
def draw_comparison(rows: Sequence[tuple[str, dict[str, Statistic]]]) -> Drawing | None:
    """Draw methods by their final accuracy, the best above; None if there is none.

    Args:
        rows: the name of each method and its quantities over seeds, those of a Summary.
    """
    if not rows:
        return None
    rows = sorted(rows, key=lambda row: -row[1]["final_accuracy"].mean if row[1]["final_accuracy"].num_seeds else 1)
    names = [display_name(name, 28) for name, _ in rows]
    over_seeds = {quantity: [of[quantity] for _, of in rows] for quantity in _COMPARED}
    figure = new_figure(PAGE_WIDTH, 30 * len(rows) + 90)
    axes, *costs = figure.subplots(1, 3, sharey=True, width_ratios=(5, 2, 2))
    _draw_accuracies(axes, over_seeds["peak_accuracy"], over_seeds["final_accuracy"])
    axes.locator_params(axis="x", nbins=7)
    axes.set_xlabel("accuracy in %, mean over tasks")
    for bars, quantity, title, write in (
        (costs[0], "parameters_total", "parameters in all", short_count),
        (costs[1], "seconds_training", "training time", duration),
    ):
        _draw_row_bars(bars, [value.mean for value in over_seeds[quantity]], write, title)
    label_rows(axes, names)
    add_legend(figure, 6, PAGE_WIDTH)
    several = any(value.num_seeds > 1 for value in over_seeds["final_accuracy"])
    spread = " Lines at a marker reach one standard deviation over seeds to each side." if several else ""
    peaks, finals = ([percent(value.mean) for value in over_seeds[quantity]] for quantity in _COMPARED[:2])
    words = [f"{n}: peak {p} %, final {f} %" for n, p, f in zip(names, peaks, finals, strict=True)]
    return Drawing.of(
        figure,
        "figure",
        ("method", *(f"{quantity}_{what}" for quantity in _COMPARED for what in ("mean", "deviation"))),
        tuple(
            (name, *(n if n == n else None for q in _COMPARED for n in (of[q].mean, of[q].deviation)))
            for name, (_, of) in zip(names, rows, strict=True)
        ),
        caption=(
            "Mean over tasks of the test accuracy. Ring: peak, when each task had just been learned. Dot: final, after "
            "the last task; the grey line between the two is what was forgotten, or gained where the dot is to the "
            f"right. The method with the best final accuracy is at the top.{spread}"
        ),
        description=f"Peak and final accuracy, parameters and training time. {'; '.join(words)}.",
    )


def _draw_accuracies(axes: Axes, peak: Sequence[Statistic], final: Sequence[Statistic]) -> None:
    y, shift = np.arange(len(peak)), 0.13  # so that neither hides the other's deviation
    means = [[100 * value.mean for value in values] for values in (peak, final)]
    axes.plot(means, [y - shift, y + shift], color=colour("rest"), linewidth=2.4, zorder=2)
    for label, values, x, place, name in (
        ("peak", peak, means[0], y - shift, "orange"),
        ("final", final, means[1], y + shift, "blue"),
    ):
        axes.errorbar(
            x,
            place,
            xerr=[100 * value.deviation for value in values],
            label=label,
            marker="o",
            markersize=8,
            color=colour(name),
            markerfacecolor=colour("paper" if label == "peak" else name),
            markeredgewidth=2,
            linestyle="none",
            elinewidth=1.5,
            zorder=4,
        )


def _draw_row_bars(axes: Axes, values: Sequence[float], write: Callable[[float], str], title: str) -> None:
    """Draw a horizontal bar for each row, its number to the right; NaN has none."""
    lengths = [value if math.isfinite(value) else 0.0 for value in values]
    bars = axes.barh(range(len(values)), lengths, 0.5, color=colour("rest"))
    axes.bar_label(bars, [write(value) for value in values], padding=6, size=10)
    axes.set_xlim(0, max(lengths) * 1.6 or 1)  # with space for the numbers
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(labelleft=False)
    axes.set_xlabel(title)


def label_rows(axes: Axes, rows: Sequence[str]) -> None:
    """Name the rows, the first one above, and draw a line through each."""
    axes.hlines(
        range(len(rows)), 0, 1, transform=axes.get_yaxis_transform(), color=colour("faint"), linewidth=1, zorder=1
    )
    axes.set_yticks(range(len(rows)), [display_name(row, 36) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", pad=12, labelcolor=colour("ink"))
    axes.grid(axis="x")


def add_legend(figure: Figure, num_letters: int, width: int) -> None:
    """Name the series above the figure, as many side by side as fit."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    columns = min(len(labels), max(1, width // (7 * min(28, num_letters) + 45)))
    figure.legend(handles, labels, loc="outside upper left", ncols=columns)
