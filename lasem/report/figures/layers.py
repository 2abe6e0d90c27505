"""How the probability of transfer developed layer by layer while each task was learned: a map for each task.

Of searches that weigh layers and not whole configurations, for networks of which no one could list the configurations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lasem.metrics import Run
from lasem.records import EpochRecord
from lasem.report.figures.canvas import add_axes, colour, figure_style, new_figure, save_svg, thin
from lasem.report.figures.drawing import Drawing
from lasem.report.numbers import display_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class _Panel:
    number: int
    task: str
    commit_epoch: int | None
    epochs: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    """Shape (layers, epochs)."""


def draw_layer_probabilities(run: Run) -> Drawing | None:
    """Draw one seed's search; None if no epoch has a probability for each layer."""
    panels = _panels(run)
    if not panels:
        return None
    num_columns = min(len(panels), 3)
    num_layers = max(len(panel.probabilities) for panel in panels)
    panel_width, panel_height = 240, min(400, max(96, 9 * num_layers))
    left, gap, pitch = 44, 40, panel_height + 78
    width = left + num_columns * (panel_width + gap) - gap + 14
    with figure_style():
        figure = new_figure(width, -(-len(panels) // num_columns) * pitch + 4)
        for position, panel in enumerate(panels):
            row, column = divmod(position, num_columns)
            axes = add_axes(figure, left + column * (panel_width + gap), row * pitch + 34, panel_width, panel_height)
            _draw_panel(axes, panel)
        svg = save_svg(figure)
    return Drawing(
        name=f"seed-{run.seed}-layer-probabilities",
        caption=(
            "A panel for each task that was searched, a row for each layer, the input at the top, a column for each "
            "epoch. Blue: the layer transfers with high probability; pale: it learns its own weights. The dashed line "
            "marks the epoch at which the search had committed."
        ),
        description="Probability that each layer transfers over the epochs of each task. "
        + "; ".join(_in_words(panel) for panel in panels[:40])
        + ".",
        svg=svg,
        width=width,
        columns=("task", "epoch", "layer", "probability"),
        rows=tuple(
            (panel.task, int(panel.epochs[at]), layer + 1, float(panel.probabilities[layer, at]))
            for panel in panels
            for layer in range(len(panel.probabilities))
            for at in _drawn_epochs(panel)
        ),
    )


def _panels(run: Run) -> list[_Panel]:
    learned = [(task.index + 1, task.task, task.commit_epoch) for task in run.tasks]
    if run.unfinished_task is not None:
        learned.append((len(learned) + 1, run.unfinished_task, None))
    panels = []
    for number, task, commit_epoch in learned:
        epochs: Sequence[EpochRecord] = [e for e in run.epochs(task) if e.transfer_probabilities is not None]
        if epochs:
            table = np.array([epoch.transfer_probabilities for epoch in epochs], dtype=np.float64).T
            panels.append(_Panel(number, task, commit_epoch, np.array([e.epoch for e in epochs]), table))
    return panels


def _drawn_epochs(panel: _Panel) -> list[int]:
    return thin(len(panel.epochs))


def _draw_panel(axes: Axes, panel: _Panel) -> None:
    from matplotlib.colors import ListedColormap

    drawn = _drawn_epochs(panel)
    num_layers, table = len(panel.probabilities), panel.probabilities[:, drawn]
    # a cell reaches from its epoch to the next one that is drawn
    edges = np.append(panel.epochs[drawn], panel.epochs[-1] + 1) - 0.5
    # one colour in different strengths, so that the page can exchange it for the one of a dark page
    sides: Any = {"cmap": ListedColormap([colour("blue")] * 2), "alpha": table}
    axes.pcolormesh(edges, np.arange(num_layers + 1) + 0.5, table, **sides)
    axes.set_facecolor(colour("faint"))
    axes.set_ylim(num_layers + 0.5, 0.5)
    axes.set_yticks(sorted({1, num_layers}), [str(layer) for layer in sorted({1, num_layers})])
    first, last = int(panel.epochs[0]), int(panel.epochs[-1])
    axes.set_xticks(sorted({first, last}))
    axes.tick_params(length=0, labelsize=10)
    axes.set_xlabel("epoch", size=10, loc="left", labelpad=1)
    axes.set_ylabel("layer", size=10, labelpad=1)
    if panel.commit_epoch is not None:
        axes.axvline(panel.commit_epoch - 0.5, color=colour("muted"), linewidth=1, linestyle=(0, (3, 3)))
    title = f"{panel.number} · {display_name(panel.task, 30)}"
    axes.annotate(title, (0, 1), (0, 12), xycoords="axes fraction", textcoords="offset points", va="center", weight=700)


def _in_words(panel: _Panel) -> str:
    final = "".join("T" if p > 0.5 else "S" for p in panel.probabilities[:, -1])
    committed = f", committed at epoch {panel.commit_epoch}" if panel.commit_epoch is not None else ""
    return f"{display_name(panel.task, 40)}: {final}{committed}"
