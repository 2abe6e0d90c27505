"""Methods side by side: peak and final accuracy, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lasem.metrics import Statistic
from lasem.report.figures.canvas import add_axes, colour, figure_style, new_figure, save_svg
from lasem.report.figures.drawing import Drawing
from lasem.report.numbers import display_name, duration, percent, short_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _TOP, _BOTTOM, _ROW, _GAP = 908, 48, 26, 30, 30
_BAR, _BAR_LABEL = 84, 66
_ABOVE_AXES = 22
_ABOVE, _BELOW = -0.13, 0.13
"""Where peak and final stand in a row of height 1, so that neither hides the other's deviation."""
_COLUMNS = ("peak_accuracy", "final_accuracy", "parameters_total", "seconds_training")

Row = tuple[str, dict[str, Statistic]]
"""A method's label and its quantities over seeds, those of a Summary."""


def draw_comparison(rows: Sequence[Row]) -> Drawing | None:
    """Draw methods by their final accuracy, the best above; None if there is none."""
    if not rows:
        return None
    ordered = sorted(rows, key=lambda row: _order(row[1]["final_accuracy"].mean))
    labels = [display_name(label, 28) for label, _ in ordered]
    left = 24 + max(64, round(6.9 * max(map(len, labels))))
    tall = _ROW * len(ordered)
    width = _WIDTH - left - 2 * (_BAR + _BAR_LABEL + _GAP) - 8
    with figure_style():
        figure = new_figure(_WIDTH, _TOP + tall + _BOTTOM)
        axes = add_axes(figure, left, _TOP, width, tall)
        _draw_accuracies(axes, ordered)
        for row, label in enumerate(labels):
            axes.annotate(
                label, (0, row), (-16, 0), xycoords=("axes fraction", "data"), textcoords="offset points", **_RIGHT
            )
        _draw_key(axes)
        _draw_bars(figure, left + width + _GAP, tall, "parameters in all", "parameters_total", short_count, ordered)
        place = left + width + 2 * _GAP + _BAR + _BAR_LABEL
        _draw_bars(figure, place, tall, "training time", "seconds_training", duration, ordered)
        svg = save_svg(figure)
    several = max(values["final_accuracy"].num_seeds for _, values in ordered) > 1
    spread = " Lines beside a mark reach one standard deviation over seeds to each side." if several else ""
    return Drawing(
        name="figure",
        caption=(
            "Mean over tasks of the test accuracy. Ring: peak, when each task had just been learned. Dot: final, after "
            "the last task; the grey line between the two is what was forgotten, or gained where the dot is to the "
            f"right. The best final accuracy stands above.{spread}"
        ),
        description="Peak and final accuracy, parameters and training time. "
        + "; ".join(
            f"{label}: peak {percent(values['peak_accuracy'].mean)} %, final {percent(values['final_accuracy'].mean)} %"
            for label, (_, values) in zip(labels, ordered, strict=True)
        )
        + ".",
        svg=svg,
        width=_WIDTH,
        columns=("method", *(f"{name}_{what}" for name in _COLUMNS for what in ("mean", "deviation"))),
        rows=tuple(
            (label, *(_cell(number) for name in _COLUMNS for number in (values[name].mean, values[name].deviation)))
            for label, values in ordered
        ),
    )


_RIGHT: dict[str, Any] = {"ha": "right", "va": "center", "annotation_clip": False}


def _order(final: float) -> float:
    return -final if final == final else 1.0


def _cell(number: float) -> float | None:
    return number if number == number else None


def _draw_accuracies(axes: Axes, rows: Sequence[Row]) -> None:
    ends: list[float] = []
    for row, (_, values) in enumerate(rows):
        peak, final = values["peak_accuracy"], values["final_accuracy"]
        axes.axhline(row, color=colour("faint"), linewidth=1, zorder=1)
        line = [100 * peak.mean, 100 * final.mean]
        axes.plot(line, [row + _ABOVE, row + _BELOW], color=colour("rest"), linewidth=2.4, zorder=2)
        for value, name, shift in ((peak, "orange", _ABOVE), (final, "blue", _BELOW)):
            mean, deviation = 100 * value.mean, 100 * value.deviation if value.num_seeds > 1 else 0.0
            ends += [mean - deviation, mean + deviation]
            axes.plot(
                [mean - deviation, mean + deviation], [row + shift] * 2, color=colour(name), linewidth=1.5, zorder=3
            )
            axes.plot(
                [mean],
                [row + shift],
                marker="o",
                markersize=8,
                color=colour(name),
                markerfacecolor=colour("paper") if name == "orange" else colour(name),
                markeredgecolor=colour(name) if name == "orange" else colour("paper"),
                markeredgewidth=2 if name == "orange" else 1,
                zorder=4,
            )
    known = [end for end in ends if end == end] or [0.0, 1.0]
    margin = max(0.5, 0.06 * (max(known) - min(known)))
    axes.set_xlim(max(0.0, min(known) - margin) - 0.3, min(100.0, max(known) + margin) + 0.3)
    _set_rows(axes, len(rows))
    axes.locator_params(axis="x", nbins=7)
    axes.grid(axis="x")
    axes.tick_params(axis="x", length=0, pad=6)


def _draw_key(axes: Axes) -> None:
    """Above the accuracies what ring and dot are."""
    style: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
    for x, word, name in ((0, "peak", "orange"), (66, "final", "blue")):
        face = colour("paper") if name == "orange" else colour(name)
        ring = {"boxstyle": "circle,pad=0.25", "facecolor": face, "edgecolor": colour(name), "linewidth": 2}
        axes.annotate(" ", (0, 1), (x + 4, _ABOVE_AXES), va="center", ha="center", size=6, bbox=ring, **style)
        axes.annotate(word, (0, 1), (x + 15, _ABOVE_AXES), va="center", color=colour(name), weight=700, **style)
    text = "accuracy in %, mean over tasks"
    axes.annotate(text, (0, 1), (130, _ABOVE_AXES), va="center", color=colour("muted"), **style)


def _draw_bars(
    figure: Figure,
    left: float,
    tall: float,
    title: str,
    quantity: str,
    write: Callable[[float], str],
    rows: Sequence[Row],
) -> None:
    axes = add_axes(figure, left, _TOP, _BAR, tall)
    values = [values[quantity].mean for _, values in rows]
    most = max((value for value in values if value == value), default=0.0) or 1.0
    axes.barh(range(len(rows)), [value if value == value else 0 for value in values], 0.5, color=colour("rest"))
    axes.set_xlim(0, most)
    _set_rows(axes, len(rows))
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    for row, value in enumerate(values):
        share = value / most if value == value else 0.0
        axes.annotate(
            write(value),
            (share, row),
            (6, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            size=10.5,
            annotation_clip=False,
        )
    style: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
    axes.annotate(title, (0, 1), (0, _ABOVE_AXES), va="center", color=colour("muted"), **style)


def _set_rows(axes: Axes, num: int) -> None:
    axes.set_ylim(num - 0.5, -0.5)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
