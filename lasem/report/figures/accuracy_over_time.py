"""Accuracy over the whole run: validation while a task is learned, test for as long as it is remembered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lasem.metrics import Run
from lasem.report.figures.canvas import add_axes, colour, figure_style, new_figure, ramp, save_svg, thin
from lasem.report.figures.drawing import Drawing
from lasem.report.numbers import display_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 908, 400, 46, 40, 168, 40
_Curve = list[tuple[float, float]]
"""Points (epochs since the run began, accuracy)."""


def draw_accuracy_over_time(run: Run) -> Drawing | None:
    """Draw one seed's accuracies; None if nothing was trained yet."""
    names = [task.task for task in run.tasks]
    names += [run.unfinished_task] if run.unfinished_task is not None else []
    if not names:
        return None
    starts = _starts(run, names)
    validation = {name: _validation(run, name, starts[name]) for name in names}
    test = _test(run, names, starts)
    with figure_style():
        figure = new_figure(_WIDTH, _HEIGHT)
        axes = add_axes(figure, _LEFT, _TOP, _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM)
        end = max([1.0, *(x for curves in (validation, test) for curve in curves.values() for x, _ in curve)])
        _draw_frame(axes, [starts[name] for name in names], end)
        for position, name in enumerate(names):
            shade = ramp(position, len(names))
            marker = "." if len(validation[name]) == 1 else ""
            axes.plot(*_in_percent(validation[name]), color=shade, linewidth=0.9, alpha=0.55, marker=marker, zorder=2)
            num = len(test[name])
            axes.plot(
                *_in_percent(test[name]),
                color=shade,
                linewidth=1.8,
                marker="o" if num <= 40 else "",
                markersize=4.5 if len(names) <= 20 else 3,
                markeredgecolor=colour("paper"),
                markeredgewidth=0.7,
                zorder=3,
            )
        low, high = axes.get_ylim()
        axes.set_ylim(max(0.0, low), min(100.0, high) + (0.5 if high >= 100 else 0.0))
        _label_ends(axes, names, test)
        svg = save_svg(figure)
    return Drawing(
        name=f"seed-{run.seed}-accuracy-over-time",
        caption=(
            "Thin lines: validation accuracy of the task being learned, epoch by epoch. Thick lines with dots: "
            "test accuracy of each task, from the end of its own training on; a line that falls is a task being "
            "forgotten, one that rises is helped by later ones. Vertical lines part the tasks, numbered above; "
            "colours run from the first task (darkest on a light page) to the last."
        ),
        description=f"Line chart of accuracy over {end:.0f} epochs and {len(names)} tasks.",
        svg=svg,
        width=_WIDTH,
        columns=("split", "task", "cumulative_epoch", "accuracy"),
        rows=tuple(
            (split, name, x, accuracy)
            for split, curves in (("validation", validation), ("test", test))
            for name in names
            for x, accuracy in curves[name]
        ),
    )


def _starts(run: Run, names: list[str]) -> dict[str, int]:
    """Epochs that passed before each task began."""
    recorded = {task.task: task.num_epochs for task in run.tasks}
    starts, passed = {}, 0
    for name in names:
        epochs = run.epochs(name)
        starts[name] = passed
        passed += max(recorded.get(name, 0), epochs[-1].epoch if epochs else 0)
    return starts


def _validation(run: Run, name: str, start: int) -> _Curve:
    epochs = run.epochs(name)
    return [(start + epochs[at].epoch, epochs[at].valid_accuracy) for at in thin(len(epochs), most=200)]


def _test(run: Run, names: list[str], starts: dict[str, int]) -> dict[str, _Curve]:
    curves: dict[str, dict[float, float]] = {name: {} for name in names}
    recorded = {task.task: task.num_epochs for task in run.tasks}
    for current in names:
        for name, accuracy in run.evaluations.get(current, {}).items():
            if name in curves and starts[name] <= starts[current]:  # where it was learned already
                curves[name][starts[current] + recorded[current]] = accuracy
    return {name: sorted(points.items()) for name, points in curves.items()}


def _in_percent(curve: _Curve) -> tuple[list[float], list[float]]:
    return [x for x, _ in curve], [100 * accuracy for _, accuracy in curve]


def _draw_frame(axes: Axes, starts: list[int], end: float) -> None:
    axes.set_xlim(0, end)
    axes.grid(axis="y")
    axes.tick_params(length=0, pad=5)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("epochs since the run began", labelpad=4)
    axes.set_title(
        "accuracy in %", loc="left", color=colour("muted"), size=11, x=-_LEFT / (_WIDTH - _LEFT - _RIGHT), pad=23
    )
    every = -(-len(starts) // 25)
    for number, (start, stop) in enumerate(zip(starts, [*starts[1:], end], strict=True), start=1):
        if number > 1:
            axes.axvline(start, color=colour("line"), linewidth=0.8, zorder=1)
        if (number - 1) % every == 0:
            axes.text(
                (start + stop) / 2,
                1.03,
                str(number),
                transform=axes.get_xaxis_transform(),
                ha="center",
                color=colour("muted"),
                size=10,
            )


def _label_ends(axes: Axes, names: list[str], test: dict[str, _Curve]) -> None:
    """Name the lines at their ends, moved apart; of many tasks only show how the colours run."""
    labelled = [position for position, name in enumerate(names) if test[name]]
    if len(labelled) > 14:
        for row, position in enumerate((labelled[0], labelled[len(labelled) // 2], labelled[-1])):
            height = 0.98 - 0.062 * row
            axes.plot(
                [1.025, 1.045],
                [height, height],
                color=ramp(position, len(names)),
                linewidth=2.5,
                transform=axes.transAxes,
                clip_on=False,
            )
            text = f"{position + 1} · {display_name(names[position], 17)}"
            axes.text(1.058, height, text, va="center", size=10.5, transform=axes.transAxes)
        return
    low, high = axes.get_ylim()
    tall = _HEIGHT - _TOP - _BOTTOM
    wanted = sorted((tall * (100 * test[names[p]][-1][1] - low) / (high - low), p) for p in labelled)
    pitch = min(15.0, tall / max(len(wanted), 1))
    places: list[float] = []
    for y, _ in wanted:  # upwards, each at least a line above the one before
        places.append(max(y, places[-1] + pitch if places else 0.0))
    ceiling = float(tall)
    for k in reversed(range(len(places))):  # and back down below the top
        places[k] = min(places[k], ceiling)
        ceiling = places[k] - pitch
    for place, (y, position) in zip(places, wanted, strict=True):
        shade = ramp(position, len(names))
        axes.annotate(
            f"{position + 1} · {display_name(names[position], 17)}",
            xy=(1, y / tall),
            xytext=(1 + 20 / (_WIDTH - _LEFT - _RIGHT), place / tall),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            size=10.5 if pitch >= 13 else 9,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": shade,
                "linewidth": 1,
                "shrinkA": 2,
                "shrinkB": 3,
                "relpos": (0, 0.5),
            },
        )
