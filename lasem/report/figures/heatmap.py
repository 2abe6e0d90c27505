"""Heat maps: the accuracy matrix, the layers that tasks transfer, and their probabilities while a task is learned."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lasem.metrics import Matrix, Run, transfer_frequencies
from lasem.records import EpochRecord
from lasem.report.figures import Drawing, caption, colour, figure_style, in_words, new_figure, new_panels, thin
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
    margin = 0.15 * ((most - least) or 1)  # without cividis' darkest end, which a dark page hides
    colours = {"cmap": "cividis", "vmin": least - margin, "vmax": most + margin / 3}
    figure, axes, mesh = _cells(tasks, range(1, num + 1), cell, (means, "mean"), matrix, **colours)
    axes.set_xlabel("accuracy in % on task", labelpad=8)
    axes.annotate("after learning", (0, 1), (-8, 7), textcoords="offset points", ha="right", **_CORNER)
    for i, j, accuracy in known:
        red, green, blue, _ = mesh.to_rgba(accuracy)
        ink = "#fdfdfd" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else "#0b0f14"
        text = percent(accuracy) if num <= 20 else f"{100 * accuracy:.0f}"
        _write(axes, i, j, text, color=ink, weight="bold" if i == j else "normal", size=size)
    return Drawing.of_run(
        figure,
        run,
        "accuracy-matrix",
        ("after_task", "on_task", "accuracy"),
        ((tasks[i], tasks[j], accuracy) for i, j, accuracy in known),
        f"Heat map of test accuracies: a row after each of {num} tasks, a column for each task tested, "
        f"from {percent(least)} to {percent(most)} percent.",
        least=percent(least),
        most=percent(most),
    )


@figure_style()
def draw_transfer_map(run: Run) -> Drawing | None:
    """Draw the configurations that one seed chose; None if its learner chooses no layers."""
    tasks = [task for task in run.tasks if task.configuration]
    if not tasks:
        return None
    configurations = [task.configuration for task in tasks]
    depth = max(map(len, configurations))
    values = np.array([[np.nan if c == " " else c == "T" for c in of.ljust(depth)] for of in configurations])
    cell = (46 if depth <= 10 else 32, 30 if len(tasks) <= 20 else 22)
    shared = [f"{percent.scale * c.count('T') / len(c):.0f} %" for c in configurations]
    from matplotlib.colors import ListedColormap

    colours = {"cmap": ListedColormap([colour("faint"), colour("blue")]), "vmin": 0, "vmax": 1}
    names, numbers = [task.task for task in tasks], [task.index + 1 for task in tasks]
    figure, axes, _ = _cells(names, numbers, cell, (shared, "shared"), values, **colours)
    axes.set_xlabel("layer, from the input to the output", labelpad=8)
    for row, configuration in enumerate(configurations):
        for layer, choice in enumerate(configuration):
            style = {"color": colour("paper"), "weight": "bold"} if choice == "T" else {"color": colour("muted")}
            _write(axes, row, layer, display_name(choice), **style)
    below = axes.secondary_xaxis("bottom")
    frequencies = [f"{100 * share:.0f} %" for share in transfer_frequencies(configurations)]
    below.set_xticks(np.arange(depth) + 0.5, frequencies, size=10)
    below.set_xlabel("share of tasks that transfer it")
    below.spines["bottom"].set_visible(False)
    return Drawing.of_run(
        figure,
        run,
        "transfer-map",
        ("task", "layer", "choice"),
        ((t.task, layer, choice) for t in tasks for layer, choice in enumerate(t.configuration, start=1)),
        f"Map of tasks by layers. {in_words((task.task, task.configuration, None) for task in tasks)}.",
    )


@figure_style()
def draw_confusion(classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> Drawing:
    """Draw the images of each class (rows) by their answer (columns); classes without images have no row."""
    counts = np.array(confusion)
    there = counts.sum(axis=1).nonzero()[0]
    shares = counts[there] / counts[there].sum(axis=1, keepdims=True)
    wrong = there[:, None] != np.arange(len(classes))
    num = len(classes)
    cell, size = ((44, 30), 11.5) if num <= 12 else ((30, 22), 9) if num <= 20 else ((11, 12), 0)
    from matplotlib.colors import ListedColormap

    # two colours in different strengths, so that a dark page can exchange them; of many classes one picture
    style: dict[str, Any] = {"cmap": ListedColormap([colour("blue"), colour("orange")]), "vmin": 0, "vmax": 1}
    style |= {"alpha": np.where(wrong & (shares > 0), 0.25 + 0.75 * shares, shares), "edgecolors": "none"}
    accuracies = [percent(float(share)) for share in shares[~wrong]]
    names = [classes[number] for number in there]
    figure, axes, _ = _cells(names, there + 1, cell, (accuracies, "right, %"), wrong, rasterized=not size, **style)
    axes.set_xlabel("answered as", labelpad=8)
    axes.set_facecolor(colour("faint") if size else "none")
    if size:
        grid: dict[str, Any] = {"color": colour("paper"), "linewidth": 2}
        axes.hlines(range(len(there) + 1), 0, num, **grid)
        axes.vlines(range(num + 1), 0, len(there), **grid)
    else:
        axes.set_xticks([k + 0.5 for k in range(num) if k % 5 == 4 or k == 0])
        axes.set_xticklabels([str(k + 1) for k in range(num) if k % 5 == 4 or k == 0])
        axes.tick_params(labelsize=9)
    for row, column in zip(*counts[there].nonzero(), strict=True) if size else ():
        ink = colour("paper" if shares[row, column] > 0.5 else "ink")
        _write(axes, row, column, str(counts[there[row], column]), color=ink, size=size)
    return Drawing.of(
        figure,
        "confusion",
        ("class", "answer", "images"),
        ((classes[i], classes[j], int(counts[i, j])) for i, j in zip(*counts.nonzero(), strict=True)),
        caption=caption("confusion"),
        description=f"Heat map of {counts.sum()} images of {len(there)} classes by their answers.",
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
    last = {task: epochs[-1].transfer_probabilities or () for task, epochs in searched.items()}
    chosen = [(task, "".join("T" if p > 0.5 else "S" for p in of), commits[task]) for task, of in last.items()]
    return Drawing.of_run(
        figure,
        run,
        "layer-probabilities",
        ("task", "epoch", "layer", "probability"),
        (
            (task, epochs[at].epoch, layer + 1, float(_table(epochs)[layer, at]))
            for task, epochs in searched.items()
            for layer in range(len(_table(epochs)))
            for at in thin(len(epochs))
        ),
        f"Probability that each layer transfers over the epochs of each task. {in_words(chosen)}.",
    )


_CORNER: dict[str, Any] = {"xycoords": "axes fraction", "color": colour("muted"), "annotation_clip": False}


def _cells(
    names: Sequence[str],
    numbers: Iterable[int],
    cell: tuple[int, int],
    right: tuple[list[str], str],
    values: Matrix,
    **style: Any,
) -> "tuple[Figure, Axes, Any]":
    """Draw cells of some pixels: rows with name and number, a text to their right, columns with numbers."""
    shown = [display_name(name, 24) for name in names]
    letters, num_columns = max(map(len, shown)) + len(right[1]) + 5, values.shape[1]
    figure, axes = new_figure(50 + 7 * letters + num_columns * cell[0], 90 + len(names) * cell[1])
    style = {"edgecolors": colour("paper"), "linewidth": 2} | style
    mesh = axes.pcolormesh(np.ma.masked_invalid(values), **style)
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
    return figure, axes, mesh


def _write(axes: "Axes", row: int, column: int, text: str, **style: Any) -> None:
    """Write into a cell."""
    axes.text(column + 0.5, row + 0.5, text, ha="center", va="center_baseline", **style)


def _table(epochs: Sequence[EpochRecord]) -> Matrix:
    """Probabilities, shape (layers, epochs)."""
    return np.array([epoch.transfer_probabilities for epoch in epochs], dtype=np.float64).T


def _draw_layers(axes: "Axes", epochs: Sequence[EpochRecord], commit_epoch: int | None) -> None:
    from matplotlib.colors import ListedColormap

    drawn = thin(len(epochs))
    table = _table(epochs)[:, drawn]
    first, last, depth = epochs[0].epoch, epochs[-1].epoch, len(table)
    # a cell reaches from its epoch to the next one that is drawn
    edges = np.array([epochs[at].epoch for at in drawn] + [last + 1]) - 0.5
    # one colour in different strengths, so that a dark page can exchange it
    style: dict[str, Any] = {"cmap": ListedColormap([colour("blue")] * 2), "alpha": table}
    axes.pcolormesh(edges, np.arange(depth + 1) + 0.5, table, **style)
    axes.set(facecolor=colour("faint"), ylim=(depth + 0.5, 0.5), xlabel="epoch", ylabel="layer")
    axes.set(xticks=sorted({first, last}), yticks=sorted({1, depth}))
    if commit_epoch is not None:
        axes.axvline(commit_epoch - 0.5, color=colour("muted"), linewidth=1, linestyle="--")
