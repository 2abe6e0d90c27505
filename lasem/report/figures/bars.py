"""Bars and dots: how a model grows with each task, methods side by side, and rows of dots on one scale."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lasem.metrics import Run, Statistic
from lasem.report.figures import PAGE_WIDTH, Drawing, caption, colour, figure_style, new_figure, ramp
from lasem.report.numbers import Unit, display_name, duration, percent, short_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lasem.training.calibration import Bin

SERIES = (("blue", "o", "-"), ("orange", "s", "--"), ("green", "^", "-."), ("ink", "D", ":"), ("muted", "v", "-"))
"""Colour, marker and line of the series of a figure, so that colour is never needed alone."""

_COMPARED = ("peak_accuracy", "final_accuracy", "parameters_total", "seconds_training")


@figure_style()
def draw_parameters(run: Run) -> Drawing | None:
    """Draw how one seed's model grew: what is shared and what each task adds; None before the first task."""
    tasks = run.tasks
    if not tasks:
        return None
    num = len(tasks)
    numbers = [task.index + 1 for task in tasks]
    shared, totals = (np.array([getattr(task, f"parameters_{of}") for task in tasks]) for of in ("shared", "total"))
    added = np.cumsum([0, *(task.parameters_added for task in tasks)])
    shared = np.clip(totals - added[1:], 0, shared)  # layers of a task that others then use are among what it brought
    separate = [number * tasks[0].parameters_total for number in range(1, num + 1)]
    figure, axes = new_figure(PAGE_WIDTH, 350)
    edges: dict[str, Any] = {"edgecolor": colour("paper"), "linewidth": 0.6 if num <= 20 else 0.3, "width": 0.72}
    layers: list[Any] = [axes.bar(numbers, shared, color=colour("rest"), label="shared", **edges)]
    for n, task in enumerate(tasks):
        label = f"{n + 1} · {display_name(task.task, 17)}"
        height, base = task.parameters_added, shared[n:] + added[n]
        layers.append(axes.bar(numbers[n:], height, bottom=base, color=ramp(n, num), label=label, **edges))
    key = [layer for n, layer in enumerate(layers) if num <= 10 or n in (0, 1, num // 2 + 1, num)]
    if num > 1:
        key += axes.plot(numbers, separate, "--", color=colour("muted"), linewidth=1.2, label="separate models")
    shown = [short_count(total) if num <= 12 or n == num - 1 else "" for n, total in enumerate(totals)]
    box = {"facecolor": colour("paper"), "linewidth": 0, "pad": 1}
    for number, total, text in zip(numbers, totals, shown, strict=True):
        axes.annotate(text, (number, total), (0, 4), textcoords="offset points", ha="center", size=9.5, bbox=box)
    axes.set(xlim=(0.4, max(num, 4) + 0.6), ylim=(0, 1.1 * max(1, *separate, *totals)))
    axes.set(xlabel="after task", ylabel="parameters")
    axes.set_xticks(numbers if num <= 20 else [n for n in numbers if n % 5 == 0 or n == 1])
    axes.yaxis.set_major_formatter(lambda value, _: short_count(value))
    axes.locator_params(axis="y", nbins=5)
    axes.grid(axis="y")
    figure.legend(handles=key[::-1], loc="outside right upper")
    return Drawing.of_run(
        figure,
        run,
        "parameters",
        ("after_task", "part", "parameters"),
        (
            row
            for position, after in enumerate(tasks)
            for row in (
                (after.task, "shared", int(shared[position])),
                *((after.task, f"added by {task.task}", task.parameters_added) for task in tasks[: position + 1]),
                (after.task, "total", after.parameters_total),
                (after.task, "separate models", separate[position]),
            )
        ),
        f"Stacked bars of parameters after each of {num} tasks; at the end {tasks[-1].parameters_total:,} "
        f"in all, {tasks[-1].parameters_shared:,} of them shared.",
    )


@figure_style()
def draw_calibration(bins: "Sequence[Bin]") -> Drawing:
    """Draw how often answers are right by how sure they are."""
    edges = np.arange(len(bins) + 1) / len(bins)
    counts = np.array([one.num_images for one in bins])
    accuracies = np.array([one.num_right for one in bins]) / np.maximum(counts, 1)
    figure, axes = new_figure(640, 320)
    middles = 100 * (edges[1:] + edges[:-1]) / 2
    bars = axes.bar(middles, 100 * accuracies, 92 / len(bins), color=colour("blue"))
    axes.bar_label(bars, [f"{count:,}" if count else "" for count in counts], padding=3, size=9)
    axes.plot([0, 100], [0, 100], "--", color=colour("muted"), linewidth=1.2)
    axes.set(xlim=(0, 100), ylim=(0, 109), xlabel="probability of the answer, %", ylabel="right answers, %")
    axes.set_yticks(range(0, 101, 20))
    axes.grid(axis="y")
    return Drawing.of(
        figure,
        "calibration",
        ("above", "images", "right", "mean_probability"),
        ((low, b.num_images, b.num_right, b.confidence) for low, b in zip(edges.tolist(), bins, strict=False)),
        caption=caption("calibration"),
        description=f"Bars of the share of right answers by their probability, of {counts.sum()} answers.",
    )


@figure_style()
def draw_comparison(rows: Sequence[tuple[str, dict[str, Statistic]]]) -> Drawing | None:
    """Draw methods, by name with a Summary's quantities over seeds, the best above; None if there is none."""
    if not rows:
        return None
    rows = sorted(rows, key=lambda row: -row[1]["final_accuracy"].mean if row[1]["final_accuracy"].num_seeds else 1)
    names = [display_name(name, 28) for name, _ in rows]
    peak, final, total, seconds = ([of[quantity] for _, of in rows] for quantity in _COMPARED)
    grid = {"ncols": 3, "sharey": True, "width_ratios": (5, 2, 2)}
    figure, (axes, *costs) = new_figure(PAGE_WIDTH, 30 * len(rows) + 90, **grid)
    y, shift = np.arange(len(rows)), 0.13  # so that neither hides the other's deviation
    means = [[100 * value.mean for value in values] for values in (peak, final)]
    axes.plot(means, [y - shift, y + shift], color=colour("rest"), linewidth=2.4, zorder=2)
    for label, values, x, place, name, face in (
        ("peak", peak, means[0], y - shift, "orange", "paper"),
        ("final", final, means[1], y + shift, "blue", "blue"),
    ):
        style: dict[str, Any] = {"markersize": 8, "markeredgewidth": 2, "elinewidth": 1.5, "zorder": 4}
        style |= {"color": colour(name), "markerfacecolor": colour(face)}
        axes.errorbar(x, place, xerr=[100 * value.deviation for value in values], fmt="o", label=label, **style)
    axes.locator_params(axis="x", nbins=7)
    axes.set_xlabel("accuracy in %, mean over tasks")
    for cost, values, write, title in (
        (costs[0], total, short_count, "parameters in all"),
        (costs[1], seconds, duration, "training time"),
    ):
        lengths = [value.mean if math.isfinite(value.mean) else 0.0 for value in values]
        bars = cost.barh(range(len(rows)), lengths, 0.5, color=colour("rest"))
        cost.bar_label(bars, [write(value.mean) for value in values], padding=6, size=10)
        cost.set(xlabel=title, xlim=(0, max(lengths) * 1.6 or 1), xticks=[])  # with space for the numbers
        cost.spines["bottom"].set_visible(False)
        cost.tick_params(labelleft=False)
    label_rows(axes, names)
    add_legend(figure, 6, PAGE_WIDTH)
    several = any(value.num_seeds > 1 for value in final)
    spread = " Lines at a marker reach one standard deviation over seeds to each side." if several else ""
    ends = zip(names, peak, final, strict=True)
    words = [f"{n}: peak {percent(p.mean)} %, final {percent(f.mean)} %" for n, p, f in ends]
    return Drawing.of(
        figure,
        "figure",
        ("method", *(f"{quantity}_{what}" for quantity in _COMPARED for what in ("mean", "deviation"))),
        (
            (name, *(n if n == n else None for q in _COMPARED for n in (of[q].mean, of[q].deviation)))
            for name, (_, of) in zip(names, rows, strict=True)
        ),
        caption=caption("comparison", spread=spread),
        description=f"Peak and final accuracy, parameters and training time. {'; '.join(words)}.",
    )


def label_rows(axes: "Axes", rows: Sequence[str]) -> None:
    """Name the rows, the first one above, and draw a line through each."""
    line: dict[str, Any] = {"color": colour("faint"), "linewidth": 1, "zorder": 1}
    axes.hlines(range(len(rows)), 0, 1, transform=axes.get_yaxis_transform(), **line)
    axes.set_yticks(range(len(rows)), [display_name(row, 36) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", pad=12, labelcolor=colour("ink"))
    axes.grid(axis="x")


def add_legend(figure: "Figure", num_letters: int, width: int) -> None:
    """Name the series above the figure, as many side by side as fit."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    columns = min(len(labels), max(1, width // (7 * min(28, num_letters) + 45)))
    figure.legend(handles, labels, loc="outside upper left", ncols=columns)


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
