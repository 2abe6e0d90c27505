"""Which layers each task transfers: a map of tasks by layers."""

from __future__ import annotations

from lasem.metrics import Run, transfer_frequencies
from lasem.report.figures.canvas import add_grid_axes, colour, figure_style, label_width, new_figure, save_svg
from lasem.report.figures.drawing import Drawing
from lasem.report.numbers import display_name


def draw_transfer_map(run: Run) -> Drawing | None:
    """Draw the configurations that one seed chose; None if its learner chooses no layers."""
    tasks = [task for task in run.tasks if task.configuration]
    if not tasks:
        return None
    num_layers = max(len(task.configuration) for task in tasks)
    cell_width, cell_height = (46 if num_layers <= 10 else 32), (30 if len(tasks) <= 20 else 22)
    names = [display_name(task.task, 24) for task in tasks]
    left, top = label_width(names), 48
    width, bottom = left + num_layers * cell_width + 82, top + len(tasks) * cell_height
    with figure_style():
        from matplotlib.patches import Rectangle

        figure = new_figure(width, bottom + 38)
        axes = add_grid_axes(figure, 0, 0, width, bottom + 38)
        axes.text(left, 14, "layer, from the input to the output", color=colour("muted"), va="center")
        axes.text(width - 8, top - 14, "shared", color=colour("muted"), ha="right", va="center")
        for layer in range(num_layers):
            x = left + (layer + 0.5) * cell_width
            axes.text(x, top - 14, str(layer + 1), color=colour("muted"), ha="center", va="center")
        for row, task in enumerate(tasks):
            centre = top + (row + 0.5) * cell_height
            axes.text(left - 14, centre, str(task.index + 1), color=colour("muted"), ha="right", va="center")
            axes.text(left - 38, centre, names[row], ha="right", va="center")
            for layer, choice in enumerate(task.configuration):
                transfers = choice == "T"
                axes.add_patch(
                    Rectangle(
                        (left + layer * cell_width + 2, top + row * cell_height + 2),
                        cell_width - 4,
                        cell_height - 4,
                        facecolor=colour("blue") if transfers else colour("faint"),
                        edgecolor=colour("blue") if transfers else colour("line"),
                        linewidth=1,
                    )
                )
                axes.text(
                    left + (layer + 0.5) * cell_width,
                    centre,
                    display_name(choice),
                    color=colour("paper") if transfers else colour("muted"),
                    weight=700 if transfers else 400,
                    ha="center",
                    va="center",
                )
            fraction = task.configuration.count("T") / len(task.configuration)
            axes.text(width - 8, centre, f"{100 * fraction:.0f} %", ha="right", va="center")
        axes.text(left - 14, bottom + 18, "tasks that transfer it", color=colour("muted"), ha="right", va="center")
        for layer, frequency in enumerate(transfer_frequencies([task.configuration for task in tasks])):
            x = left + (layer + 0.5) * cell_width
            axes.text(x, bottom + 18, f"{100 * frequency:.0f} %", ha="center", va="center", size=10)
        svg = save_svg(figure)
    return Drawing(
        name=f"seed-{run.seed}-transfer-map",
        caption=(
            "T, filled: the layer transfers, it uses the weights or factors shared with other tasks. S, empty: "
            "the task has its own. Columns that are filled for most tasks hold knowledge that is useful in "
            "general."
        ),
        description="Map of tasks by layers. "
        + "; ".join(f"{display_name(task.task, 40)}: {task.configuration}" for task in tasks[:40])
        + ".",
        svg=svg,
        width=width,
        columns=("task", "layer", "choice"),
        rows=tuple((t.task, layer, choice) for t in tasks for layer, choice in enumerate(t.configuration, start=1)),
    )
