"""The accuracy matrix as a heat map with its numbers."""

from __future__ import annotations

import numpy as np

from lasem.metrics import Run
from lasem.report.figures.canvas import add_grid_axes, colour, figure_style, label_width, new_figure, save_svg
from lasem.report.figures.drawing import Drawing
from lasem.report.numbers import display_name, percent


def draw_accuracy_matrix(run: Run) -> Drawing | None:
    """Draw the matrix of one seed; None before the first task was evaluated."""
    matrix, tasks = run.accuracy_matrix, run.evaluated_tasks
    num = len(tasks)
    if not num:
        return None
    cell_width, cell_height = (56, 34) if num <= 12 else (42, 26) if num <= 20 else (30, 20)
    names = [display_name(task.task, 24) for task in tasks]
    left, top = label_width(names), 48
    width, height = left + num * cell_width + 74, top + num * cell_height + 8
    least, most = float(np.nanmin(matrix)), float(np.nanmax(matrix))
    size = 11.5 if num <= 12 else 10 if num <= 20 else 8
    with figure_style():
        from matplotlib import colormaps
        from matplotlib.colors import to_hex
        from matplotlib.patches import Rectangle

        cividis = colormaps["cividis"]
        figure = new_figure(width, height)
        axes = add_grid_axes(figure, 0, 0, width, height)
        axes.text(left, 14, "accuracy in % on task", color=colour("muted"), va="center")
        axes.text(left - 14, top - 14, "after learning", color=colour("muted"), ha="right", va="center")
        axes.text(width - 8, top - 14, "mean", color=colour("muted"), ha="right", va="center")
        for j, name in enumerate(names):
            centre = top + (j + 0.5) * cell_height
            axes.text(
                left + (j + 0.5) * cell_width, top - 14, str(j + 1), color=colour("muted"), ha="center", va="center"
            )
            axes.text(left - 14, centre, str(j + 1), color=colour("muted"), ha="right", va="center")
            axes.text(left - 38, centre, name, ha="right", va="center")
            seen = matrix[j, : j + 1]
            if not np.isnan(seen).all():
                axes.text(width - 8, centre, percent(float(np.nanmean(seen))), ha="right", va="center", weight=700)
        for i, j in zip(*np.nonzero(~np.isnan(matrix)), strict=True):
            accuracy = float(matrix[i, j])
            shade = (accuracy - least) / (most - least) if most > least else 0.5
            x, y = left + j * cell_width, top + i * cell_height
            fill = cividis(0.12 + 0.83 * shade)
            axes.add_patch(
                Rectangle((x + 1, y + 1), cell_width - 2, cell_height - 2, facecolor=to_hex(fill), linewidth=0)
            )
            axes.text(
                x + cell_width / 2,
                y + cell_height / 2,
                percent(accuracy) if num <= 20 else f"{100 * accuracy:.0f}",
                color="#fdfdfd" if 0.299 * fill[0] + 0.587 * fill[1] + 0.114 * fill[2] < 0.5 else "#0b0f14",
                weight=700 if i == j else 400,
                size=size,
                ha="center",
                va="center",
            )
        svg = save_svg(figure)
    return Drawing(
        name=f"seed-{run.seed}-accuracy-matrix",
        caption=(
            "Read a column downwards to see what becomes of a task while later ones are learned. The diagonal, in "
            f"bold, is each task just after its own training. Lighter is better, from {percent(least)} % (darkest) "
            f"to {percent(most)} % (lightest); the mean is over the tasks learned by then."
        ),
        description=(
            f"Heat map of test accuracies: a row after each of {num} tasks, a column for each task tested, "
            f"from {percent(least)} to {percent(most)} percent."
        ),
        svg=svg,
        width=width,
        columns=("after_task", "on_task", "accuracy"),
        rows=tuple(
            (tasks[i].task, tasks[j].task, float(matrix[i, j]))
            for i, j in zip(*np.nonzero(~np.isnan(matrix)), strict=True)
        ),
    )
