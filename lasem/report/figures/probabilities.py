"""How the probability of every configuration developed while each task was learned: a panel for each task."""

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

_RUNNERS_UP = ("orange", "green")
_NUM_RUNNERS_UP = len(_RUNNERS_UP)
_NUM_DRAWN = 32
"""Lines in a panel; what is behind them becomes one band, so that 256 configurations stay readable."""


@dataclass(frozen=True)
class _Panel:
    number: int
    task: str
    names: tuple[str, ...]
    winner: int
    commit_epoch: int | None
    best_epoch: int | None
    epochs: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    """Shape (epochs, configurations)."""
    order: tuple[int, ...]
    """Configurations by their highest probability, the winner first."""


def draw_probabilities(run: Run) -> Drawing | None:
    """Draw one seed's search; None if no task had more than one configuration to choose from."""
    panels = _panels(run)
    if all(len(panel.names) < 2 for panel in panels):
        return None
    num_columns = min(len(panels), 3 if len(panels) <= 12 else 4)
    panel_width, panel_height = (257, 118) if num_columns <= 3 else (186, 84)
    left, gap, pitch = 44, 34, panel_height + 82
    width = left + num_columns * (panel_width + gap) - gap + 14
    height = -(-len(panels) // num_columns) * pitch + 4
    with figure_style():
        figure = new_figure(width, height)
        for position, panel in enumerate(panels):
            row, column = divmod(position, num_columns)
            axes = add_axes(figure, left + column * (panel_width + gap), row * pitch + 46, panel_width, panel_height)
            # beside a panel without axes, the units stand here
            leftmost = column == 0 or not _was_searched(panels[position - 1])
            _draw_panel(axes, panel, panel_width, leftmost=leftmost)
        svg = save_svg(figure)
    return Drawing(
        name=f"seed-{run.seed}-configuration-probabilities",
        caption=(
            "A panel for each task. The thick blue line is the configuration that the task got, the thin orange "
            "and green ones came closest, grey are all others (a grey band reaches up to the highest of those not "
            "drawn one by one). The dashed line marks the epoch at which the search had committed; the dot is the "
            "epoch that the validation images chose."
        ),
        description="Probability of each configuration over the epochs of each task. "
        + "; ".join(_in_words(panel) for panel in panels[:40])
        + ".",
        svg=svg,
        width=width,
        columns=("task", "epoch", "configuration", "probability"),
        rows=tuple(
            (panel.task, int(panel.epochs[at]), panel.names[c], float(panel.probabilities[at, c]))
            for panel in panels
            for c in panel.order[:_NUM_DRAWN]
            for at in _drawn_epochs(panel)
        ),
    )


def _panels(run: Run) -> list[_Panel]:
    panels = []
    names_by_number = {len(task.configurations): task.configurations for task in run.tasks}
    for number, task in enumerate(run.tasks, start=1):
        winner = task.configurations.index(task.configuration) if task.configuration in task.configurations else None
        epochs = run.epochs(task.task)
        panels.append(
            _panel(number, task.task, task.configurations, winner, epochs, task.commit_epoch, task.best_epoch)
        )
    if run.unfinished_task is not None:
        epochs = run.epochs(run.unfinished_task)
        # a task's configurations are named in its last record, which this task does not have yet
        names = names_by_number.get(len(epochs[-1].probabilities), ())
        panels.append(_panel(len(panels) + 1, run.unfinished_task, names, None, epochs, None, None))
    return panels


def _panel(
    number: int,
    task: str,
    names: Sequence[str],
    winner: int | None,
    epochs: Sequence[EpochRecord],
    commit_epoch: int | None,
    best_epoch: int | None,
) -> _Panel:
    num = max([len(names), *(len(epoch.probabilities) for epoch in epochs)])
    probabilities = np.zeros((len(epochs), num))
    for at, epoch in enumerate(epochs):
        if len(epoch.probabilities) == 1 < num and epoch.configuration in names:
            # a phase after the search, which trains what was chosen and knows of no other configuration
            probabilities[at, list(names).index(epoch.configuration)] = epoch.probabilities[0]
        else:
            probabilities[at, : len(epoch.probabilities)] = epoch.probabilities
    if winner is None:  # not chosen yet: the one that leads
        winner = int(probabilities[-1].argmax()) if probabilities.size else 0
    highest = probabilities.max(axis=0) if len(epochs) else np.zeros(num)
    order = sorted(range(num), key=lambda c: (c != winner, -highest[c], c))
    return _Panel(
        number=number,
        task=task,
        names=tuple(names[c] if c < len(names) else f"number {c + 1}" for c in range(num)),
        winner=winner,
        commit_epoch=commit_epoch,
        best_epoch=best_epoch,
        epochs=np.array([epoch.epoch for epoch in epochs], dtype=np.int64),
        probabilities=probabilities,
        order=tuple(order),
    )


def _was_searched(panel: _Panel) -> bool:
    return len(panel.names) > 1 and len(panel.epochs) > 0


def _drawn_epochs(panel: _Panel) -> list[int]:
    marked = [epoch for epoch in (panel.commit_epoch, panel.best_epoch) if epoch is not None]
    return thin(len(panel.epochs), keep=[int(np.searchsorted(panel.epochs, epoch)) for epoch in marked])


def _draw_panel(axes: Axes, panel: _Panel, width: int, *, leftmost: bool) -> None:
    axes.set_ylim(-0.02, 1.03)
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"] if leftmost else ["", "", ""])
    axes.tick_params(length=0, labelsize=10)
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    _draw_heading(axes, panel, width)
    if not _was_searched(panel):
        reason = "one configuration: nothing to choose" if len(panel.names) < 2 else "no epochs recorded"
        axes.text(0.5, 0.5, reason, transform=axes.transAxes, ha="center", va="center", color=colour("muted"), size=10)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines["bottom"].set_visible(False)
        return
    _draw_lines(axes, panel)
    first, last = int(panel.epochs[0]), int(panel.epochs[-1])
    axes.set_xlim(first - 0.5 if first == last else first, last + 0.5 if first == last else last)
    axes.set_xticks(
        sorted({first, last, *([panel.commit_epoch] if _has_room(panel.commit_epoch, first, last) else [])})
    )
    if leftmost:
        axes.set_xlabel("epoch", size=10, loc="left", labelpad=1)


def _draw_heading(axes: Axes, panel: _Panel, width: int) -> None:
    """Above the panel the task, and below it the leading configurations in their lines' colours, as many as fit."""
    above: dict[str, Any] = {
        "xycoords": "axes fraction",
        "textcoords": "offset points",
        "va": "center",
        "annotation_clip": False,
    }
    letters = width // 7
    title = f"{panel.number} · {display_name(panel.task, letters - 5)}"
    axes.annotate(title, (0, 1), (0, 28), weight=700, **above)
    x = 0.0
    for c, name in zip(panel.order[: 1 + _NUM_RUNNERS_UP], ("blue", *_RUNNERS_UP), strict=False):
        label = display_name(panel.names[c], letters)
        length = 6.7 * len(label)  # a letter of the monospaced font at this size
        if x + length > width:
            break
        bold = 700 if c == panel.winner else 400
        axes.annotate(label, (0, 1), (x, 11), weight=bold, color=colour(name), family="monospace", size=10.5, **above)
        x += length + 12


def _draw_lines(axes: Axes, panel: _Panel) -> None:
    drawn = _drawn_epochs(panel)
    epochs, probabilities = panel.epochs[drawn], panel.probabilities[drawn]
    runners_up = panel.order[1 : 1 + _NUM_RUNNERS_UP]
    behind = panel.order[_NUM_DRAWN:]
    if behind:
        highest = probabilities[:, list(behind)].max(axis=1)
        axes.fill_between(epochs, 0, highest, color=colour("line"), linewidth=0, zorder=1.5)
    marker = "." if len(epochs) == 1 else ""  # a line through one point shows nothing
    for c in panel.order[1 + _NUM_RUNNERS_UP : _NUM_DRAWN]:
        axes.plot(epochs, probabilities[:, c], color=colour("rest"), linewidth=0.7, marker=marker, zorder=2)
    if panel.commit_epoch is not None:
        axes.axvline(panel.commit_epoch, color=colour("muted"), linewidth=1, linestyle=(0, (3, 3)), zorder=2.2)
    for c, name in zip(runners_up, _RUNNERS_UP, strict=False):
        axes.plot(epochs, probabilities[:, c], color=colour(name), linewidth=1.2, marker=marker, zorder=2.5)
    axes.plot(epochs, probabilities[:, panel.winner], color=colour("blue"), linewidth=2.6, marker=marker, zorder=3)
    if panel.best_epoch is not None and panel.best_epoch in panel.epochs:
        at = int(np.searchsorted(panel.epochs, panel.best_epoch))
        axes.plot(
            [panel.best_epoch],
            [panel.probabilities[at, panel.winner]],
            marker="o",
            markersize=6.5,
            color=colour("blue"),
            markeredgecolor=colour("paper"),
            markeredgewidth=1.5,
            clip_on=False,
            zorder=4,
        )


def _has_room(commit_epoch: int | None, first: int, last: int) -> bool:
    return commit_epoch is not None and (last - first) * 0.12 < commit_epoch - first < (last - first) * 0.88


def _in_words(panel: _Panel) -> str:
    chosen = panel.names[panel.winner] if panel.names else "no configuration"
    committed = f", committed at epoch {panel.commit_epoch}" if panel.commit_epoch is not None else ""
    return f"{display_name(panel.task, 40)}: {chosen}{committed}"
