"""Heat maps: the accuracy matrix, the layers that tasks transfer, and their probabilities while a task is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lasem.metrics import Matrix, Run, transfer_frequencies
from lasem.records import EpochRecord
from lasem.report.figures import Drawing, colour, figure_style, new_figure, new_panels, thin
from lasem.report.numbers import display_name, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@figure_style()
def draw_accuracy_matrix(run: Run) -> Drawing | None:
    """Draw the matrix of one seed; None before the first task was evaluated."""
    matrix, tasks = run.accuracy_matrix, [record.task for record in run.evaluated_tasks]
    num = len(tasks)
    if not num:
        return None
    cell, size = ((56, 34), 11.5) if num <= 12 else ((42, 26), 10) if num <= 20 else ((30, 20), 8)
    least, most = float(np.nanmin(matrix)), float(np.nanmax(matrix))
    known = [(int(i), int(j), float(matrix[i, j])) for i, j in zip(*np.nonzero(~np.isnan(matrix)), strict=True)]
    seen = [row[: i + 1][~np.isnan(row[: i + 1])] for i, row in enumerate(matrix)]
    means = [percent(float(row.mean())) if row.size else "" for row in seen]
    figure, axes = _cells(tasks, range(1, num + 1), cell, (means, "mean"), num)
    axes.set_xlabel("accuracy in % on task", labelpad=8)
    axes.annotate("after learning", (0, 1), (-8, 7), textcoords="offset points", ha="right", **_CORNER)
    margin = 0.15 * ((most - least) or 1)  # without cividis' darkest end, which a dark page hides
    mesh = _draw_cells(axes, matrix, cmap="cividis", vmin=least - margin, vmax=most + margin / 3)
    for i, j, accuracy in known:
        red, green, blue, _ = mesh.to_rgba(accuracy)
        axes.text(
            j + 0.5,
            i + 0.5,
            percent(accuracy) if num <= 20 else f"{100 * accuracy:.0f}",
            color="#fdfdfd" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else "#0b0f14",
            weight=700 if i == j else 400,
            size=size,
            ha="center",
            va="center_baseline",
        )
    return Drawing.of(
        figure,
        f"seed-{run.seed}-accuracy-matrix",
        ("after_task", "on_task", "accuracy"),
        tuple((tasks[i], tasks[j], accuracy) for i, j, accuracy in known),
        caption=(
            "Read a column downwards to see what becomes of a task while later ones are learned. The diagonal, in "
            f"bold, is each task just after its own training. Lighter is better, from {percent(least)} % (darkest) "
            f"to {percent(most)} % (lightest); the mean is over the tasks learned by then."
        ),
        description=(
            f"Heat map of test accuracies: a row after each of {num} tasks, a column for each task tested, "
            f"from {percent(least)} to {percent(most)} percent."
        ),
    )


@figure_style()
def draw_transfer_map(run: Run) -> Drawing | None:
    """Draw the configurations that one seed chose; None if its learner chooses no layers."""
    tasks = [task for task in run.tasks if task.configuration]
    if not tasks:
        return None
    configurations = [task.configuration for task in tasks]
    depth = max(map(len, configurations))
    values = np.full((len(tasks), depth), np.nan)
    for row, configuration in enumerate(configurations):
        values[row, : len(configuration)] = [choice == "T" for choice in configuration]
    cell = (46 if depth <= 10 else 32, 30 if len(tasks) <= 20 else 22)
    shared = [f"{percent.scale * c.count('T') / len(c):.0f} %" for c in configurations]
    from matplotlib.colors import ListedColormap

    numbers = [task.index + 1 for task in tasks]
    figure, axes = _cells([task.task for task in tasks], numbers, cell, (shared, "shared"), depth)
    axes.set_xlabel("layer, from the input to the output", labelpad=8)
    _draw_cells(axes, values, cmap=ListedColormap([colour("faint"), colour("blue")]), vmin=0, vmax=1)
    for row, configuration in enumerate(configurations):
        for layer, choice in enumerate(configuration):
            style = {"color": colour("paper"), "weight": 700} if choice == "T" else {"color": colour("muted")}
            axes.text(layer + 0.5, row + 0.5, display_name(choice), ha="center", va="center_baseline", **style)
    below = axes.secondary_xaxis("bottom")
    frequencies = [f"{100 * share:.0f} %" for share in transfer_frequencies(configurations)]
    below.set_xticks(np.arange(depth) + 0.5, frequencies, size=10)
    below.set_xlabel("share of tasks that transfer it")
    below.spines["bottom"].set_visible(False)
    words = "; ".join(f"{display_name(task.task, 40)}: {task.configuration}" for task in tasks[:40])
    return Drawing.of(
        figure,
        f"seed-{run.seed}-transfer-map",
        ("task", "layer", "choice"),
        tuple((t.task, layer, choice) for t in tasks for layer, choice in enumerate(t.configuration, start=1)),
        caption=(
            "T, filled: the layer transfers, it uses the weights or factors shared with other tasks. S, empty: "
            "the task has its own. Columns that are filled for most tasks hold knowledge that is useful in "
            "general."
        ),
        description=f"Map of tasks by layers. {words}.",
    )


@figure_style()
def draw_layer_probabilities(run: Run) -> Drawing | None:
    """Draw how one seed's search weighed each layer; None if no epoch has a probability for each layer.

    Of searches that weigh layers and not whole configurations, for networks that have too many configurations to list.
    """
    commits: dict[str, int | None] = {task.task: task.commit_epoch for task in run.tasks}
    if run.unfinished_task is not None:
        commits[run.unfinished_task] = None
    searched = {
        task: epochs
        for task in commits
        if (epochs := [epoch for epoch in run.epochs(task) if epoch.transfer_probabilities is not None])
    }
    if not searched:
        return None
    depth = max(len(epoch.transfer_probabilities or ()) for epochs in searched.values() for epoch in epochs)
    num_columns = min(len(searched), 3)
    heights = [min(400, max(96, 9 * depth)) + 66] * -(-len(searched) // num_columns)
    width = 30 + 290 * num_columns
    numbers = {task: number for number, task in enumerate(commits, start=1)}
    figure, panels = new_panels(len(searched), num_columns, width, heights)
    for axes, (task, epochs) in zip(panels, searched.items(), strict=True):
        axes.set_title(f"{numbers[task]} · {display_name(task, 30)}")
        _draw_layers(axes, epochs, commits[task])
    words = "; ".join(_in_words(task, epochs[-1], commits[task]) for task, epochs in list(searched.items())[:40])
    return Drawing.of(
        figure,
        f"seed-{run.seed}-layer-probabilities",
        ("task", "epoch", "layer", "probability"),
        tuple(
            (task, epochs[at].epoch, layer + 1, float(_table(epochs)[layer, at]))
            for task, epochs in searched.items()
            for layer in range(len(_table(epochs)))
            for at in thin(len(epochs))
        ),
        caption=(
            "A panel for each task that was searched, a row for each layer, the input at the top, a column for each "
            "epoch. Blue: the layer transfers with high probability; pale: it learns its own weights. The dashed line "
            "marks the epoch at which the search had committed."
        ),
        description=f"Probability that each layer transfers over the epochs of each task. {words}.",
    )


_CORNER: dict[str, Any] = {"xycoords": "axes fraction", "color": colour("muted"), "annotation_clip": False}


def _cells(
    names: Sequence[str], numbers: Sequence[int], cell: tuple[int, int], right: tuple[list[str], str], num_columns: int
) -> tuple[Figure, Axes]:
    """A figure for cells of some pixels: rows with name and number, a text to their right, columns with numbers."""
    shown = [display_name(name, 24) for name in names]
    letters = max(map(len, shown)) + len(right[1]) + 5
    figure = new_figure(50 + 7 * letters + num_columns * cell[0], 90 + len(names) * cell[1])
    axes = figure.subplots()
    axes.set_xlim(0, num_columns)
    axes.set_ylim(len(names), 0)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(num_columns) + 0.5, [str(number) for number in range(1, num_columns + 1)])
    rows = np.arange(len(names)) + 0.5
    axes.set_yticks(rows, [f"{number} · {name}" for name, number in zip(shown, numbers, strict=True)])
    axes.tick_params(axis="y", labelcolor=colour("ink"))
    edge = axes.secondary_yaxis("right")
    edge.set_yticks(rows, right[0], color=colour("ink"))
    edge.spines["right"].set_visible(False)
    axes.annotate(right[1], (1, 1), (8, 7), textcoords="offset points", **_CORNER)
    return figure, axes


def _draw_cells(axes: Axes, values: Matrix, **colours: Any) -> Any:
    return axes.pcolormesh(np.ma.masked_invalid(values), edgecolors=colour("paper"), linewidth=2, **colours)


def _table(epochs: Sequence[EpochRecord]) -> Matrix:
    """Probabilities, shape (layers, epochs)."""
    return np.array([epoch.transfer_probabilities for epoch in epochs], dtype=np.float64).T


def _draw_layers(axes: Axes, epochs: Sequence[EpochRecord], commit_epoch: int | None) -> None:
    from matplotlib.colors import ListedColormap

    drawn = thin(len(epochs))
    table = _table(epochs)[:, drawn]
    first, last, depth = epochs[0].epoch, epochs[-1].epoch, len(table)
    # a cell reaches from its epoch to the next one that is drawn
    edges = np.array([epochs[at].epoch for at in drawn] + [last + 1]) - 0.5
    # one colour in different strengths, so that a dark page can exchange it
    style: dict[str, Any] = {"cmap": ListedColormap([colour("blue")] * 2), "alpha": table}
    axes.pcolormesh(edges, np.arange(depth + 1) + 0.5, table, **style)
    axes.set_facecolor(colour("faint"))
    axes.set_ylim(depth + 0.5, 0.5)
    axes.set_yticks(sorted({1, depth}))
    axes.set_xticks(sorted({first, last}))
    axes.set_xlabel("epoch")
    axes.set_ylabel("layer")
    if commit_epoch is not None:
        axes.axvline(commit_epoch - 0.5, color=colour("muted"), linewidth=1, linestyle="--")


def _in_words(task: str, last: EpochRecord, commit_epoch: int | None) -> str:
    final = "".join("T" if p > 0.5 else "S" for p in last.transfer_probabilities or ())
    committed = f", committed at epoch {commit_epoch}" if commit_epoch is not None else ""
    return f"{display_name(task, 40)}: {final}{committed}"
