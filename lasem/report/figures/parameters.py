"""How the model grows: shared parameters, and what each task adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lasem.metrics import Run
from lasem.report.figures.canvas import add_axes, add_grid_axes, colour, figure_style, new_figure, ramp, save_svg
from lasem.report.figures.drawing import Drawing
from lasem.report.numbers import display_name, short_count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 908, 350, 66, 40, 180, 44


def draw_parameters(run: Run) -> Drawing | None:
    """Draw one seed's growth; None before the first task was learned."""
    tasks = run.tasks
    if not tasks:
        return None
    num = len(tasks)
    with figure_style():
        figure = new_figure(_WIDTH, _HEIGHT)
        axes = add_axes(figure, _LEFT, _TOP, _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM)
        numbers = [task.index + 1 for task in tasks]
        edge = 0.6 if num <= 20 else 0.3
        style: dict[str, Any] = {"edgecolor": colour("paper"), "linewidth": edge, "width": 0.72}
        axes.bar(numbers, [task.parameters_shared for task in tasks], color=colour("rest"), **style)
        for position, task in enumerate(tasks):
            base = [after.parameters_shared + _added_before(run, position) for after in tasks[position:]]
            axes.bar(numbers[position:], task.parameters_added, bottom=base, color=ramp(position, num), **style)
        separate = [position * tasks[0].parameters_total for position in range(1, num + 1)]
        if num > 1:
            axes.plot(numbers, separate, color=colour("muted"), linewidth=1.2, linestyle=(0, (4, 3)), zorder=3)
        ceiling = 1.1 * max(1, *separate, *(task.parameters_total for task in tasks))
        axes.set_ylim(0, ceiling)
        axes.set_xlim(0.4, max(num, 4) + 0.6)
        axes.set_xticks(numbers if num <= 20 else [n for n in numbers if n % 5 == 0 or n == 1])
        axes.yaxis.set_major_formatter(lambda value, _: short_count(value))
        axes.locator_params(axis="y", nbins=5)
        axes.grid(axis="y")
        axes.tick_params(length=0, pad=5)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("after task", labelpad=4)
        axes.set_title(
            "parameters", loc="left", color=colour("muted"), size=11, x=-_LEFT / (_WIDTH - _LEFT - _RIGHT), pad=14
        )
        for number, task in zip(numbers, tasks, strict=True):
            if num <= 12 or number == num:
                total = short_count(task.parameters_total)
                axes.annotate(
                    total,
                    (number, task.parameters_total),
                    (0, 4),
                    textcoords="offset points",
                    ha="center",
                    size=9.5,
                    bbox={"facecolor": colour("paper"), "linewidth": 0, "pad": 1},
                    zorder=4,
                )
        _add_key(figure, run)
        svg = save_svg(figure)
    return Drawing(
        name=f"seed-{run.seed}-parameters",
        caption=(
            "Each bar is everything the model holds after a task: the shared knowledge (grey) and, above it, what "
            "each task so far keeps for itself, its head included. The dashed line is a separate model for each "
            "task, each as large as this one after its first."
        ),
        description=(
            f"Stacked bars of parameters after each of {num} tasks; at the end {tasks[-1].parameters_total:,} in all, "
            f"{tasks[-1].parameters_shared:,} of them shared."
        ),
        svg=svg,
        width=_WIDTH,
        columns=("after_task", "part", "parameters"),
        rows=tuple(
            row
            for position, after in enumerate(tasks)
            for row in (
                (after.task, "shared", after.parameters_shared),
                *((after.task, f"added by {task.task}", task.parameters_added) for task in tasks[: position + 1]),
                (after.task, "total", after.parameters_total),
                (after.task, "separate models", separate[position]),
            )
        ),
    )


def _added_before(run: Run, position: int) -> int:
    return sum(task.parameters_added for task in run.tasks[:position])


def _add_key(figure: Figure, run: Run) -> None:
    from matplotlib.patches import Rectangle

    height = _HEIGHT - _TOP - _BOTTOM
    axes = add_grid_axes(figure, _WIDTH - _RIGHT + 16, _TOP, _RIGHT - 16, height)
    num = len(run.tasks)
    shown = [p for p in range(num) if num <= 10 or p in (0, num // 2, num - 1)]
    entries = [(ramp(p, num), f"{p + 1} · {display_name(run.tasks[p].task, 17)}") for p in reversed(shown)]
    if num > 1:
        axes.plot([0, 12], [10, 10], color=colour("muted"), linewidth=1.2, linestyle=(0, (4, 3)))
        axes.text(20, 10, "separate models", va="center", size=10.5)
    y = 34.0
    for fill, label in (*entries, (colour("rest"), "shared")):
        axes.add_patch(Rectangle((0, y - 6), 12, 12, facecolor=fill, linewidth=0))
        axes.text(20, y, label, va="center", size=10.5)
        y += 19
