"""The tree of configurations as a search left it: a branch is as thick as the configurations behind it are probable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import fsum
from typing import TYPE_CHECKING, Any

from lasem.metrics import Run
from lasem.records import EpochRecord, TaskRecord
from lasem.report.figures.canvas import add_grid_axes, colour, figure_style, new_figure, save_svg
from lasem.report.figures.drawing import Drawing
from lasem.report.numbers import display_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_TREES = 12
_MOST_WHOLE = 64
"""With more configurations, branches that hold less than ``_LEAST`` are not drawn."""
_LEAST = 0.01
_MOST_NAMED = 16
"""Leaves that are all named; of more, the ``_NUM_STRONGEST`` that are more probable than by chance."""
_NUM_STRONGEST = 8

_PAGE = 905
_ROOT, _GAP, _TOP, _BOTTOM, _MARK, _LINE, _LETTER = 16, 36, 54, 26, 12, 11.5, 6.35


@dataclass(frozen=True)
class _Tree:
    number: int
    task: str
    epoch: int
    chosen: str
    ends: tuple[int, ...]
    """Layers up to the end of each level of the tree."""
    num_configurations: int
    branches: dict[str, float]
    """The probability of every prefix that is drawn, from the uppermost to the lowest."""

    @cached_property
    def forks(self) -> dict[str, list[str]]:
        """What each prefix forks into, from the whole configurations' last layers back to the root, which is empty."""
        begins = dict(zip(self.ends, (0, *self.ends), strict=False))
        forks: dict[str, list[str]] = {}
        for prefix in sorted(self.branches, key=len, reverse=True):
            forks.setdefault(prefix[: begins[len(prefix)]], []).append(prefix)
        return forks

    @cached_property
    def leaves(self) -> list[str]:
        """Whole configurations, and prefixes of which nothing longer is drawn."""
        return [prefix for prefix in self.branches if prefix not in self.forks]

    def name(self, prefix: str) -> str:
        """A letter for each level."""
        return display_name("".join(prefix[end - 1] for end in self.ends))


def draw_tree(run: Run) -> Drawing | None:
    """Draw what one seed's search knew of each task when it decided; None if it never weighed listed configurations."""
    every = [tree for task in run.tasks if (tree := _tree(task, run.epochs(task.task))) is not None]
    if not every:
        return None
    trees = every[-_MOST_TREES:]
    num_levels = max(len(tree.ends) for tree in trees)
    pitch = max(24, min(40, 176 // num_levels))
    panel_width = max(210, _ROOT + num_levels * pitch + _MARK + round(_LETTER * (num_levels + 5)))
    num_columns = max(1, min(3, len(trees), (_PAGE + _GAP - 16) // (panel_width + _GAP)))
    rows = [trees[at : at + num_columns] for at in range(0, len(trees), num_columns)]
    heights = [max(_height(tree) for tree in row) + _TOP + _BOTTOM for row in rows]
    width = num_columns * (panel_width + _GAP) - _GAP + 16
    with figure_style():
        figure = new_figure(width, round(sum(heights)))
        for row, row_trees in enumerate(rows):
            for column, tree in enumerate(row_trees):
                left, top = 8 + column * (panel_width + _GAP), sum(heights[:row])
                axes = add_grid_axes(figure, left, top, panel_width, heights[row])
                _draw_tree(axes, tree, panel_width, pitch, leftmost=column == 0)
        svg = save_svg(figure)
    return Drawing(
        name=f"seed-{run.seed}-configuration-tree",
        caption=_caption(trees, len(every)),
        description="Tree of configurations for each task. " + "; ".join(_in_words(tree) for tree in trees) + ".",
        svg=svg,
        width=width,
        columns=("task", "prefix", "probability"),
        rows=tuple((tree.task, prefix, p) for tree in trees for prefix, p in tree.branches.items()),
    )


def _tree(task: TaskRecord, epochs: Sequence[EpochRecord]) -> _Tree | None:
    names = task.configurations
    weighed = [e for e in epochs if len(e.probabilities) == len(names) and sum(p > 0 for p in e.probabilities) > 1]
    if not weighed or len({len(name) for name in names}) > 1 or task.configuration not in names:
        return None
    layers = list(zip(*names, strict=True))
    # layers that go together in every configuration are one level
    ends = [layer for layer, (one, other) in enumerate(pairwise(layers), start=1) if one != other] + [len(layers)]
    held: dict[str, list[float]] = {}
    # T goes up, S down
    for name, p in sorted(zip(names, weighed[-1].probabilities, strict=True), key=lambda x: x[0], reverse=True):
        for end in ends:
            held.setdefault(name[:end], []).append(p)
    least = _LEAST if len(names) > _MOST_WHOLE else 0
    sums = {prefix: fsum(parts) for prefix, parts in held.items()}
    return _Tree(
        number=task.index + 1,
        task=task.task,
        epoch=weighed[-1].epoch,
        chosen=task.configuration,
        ends=tuple(ends),
        num_configurations=len(names),
        branches={prefix: p for prefix, p in sums.items() if p >= least or task.configuration.startswith(prefix)},
    )


def _thickness(probability: float) -> float:
    """In pixels; what is hardly probable can still be seen."""
    return 0.8 + 13.2 * probability


def _spacing(num_leaves: int) -> float:
    """Pixels between leaves, beside their own thickness."""
    return 11 if num_leaves <= _MOST_NAMED else max(3.5, 11 * _MOST_NAMED / num_leaves)


def _height(tree: _Tree) -> float:
    leaves = tree.leaves
    return sum(_spacing(len(leaves)) + _thickness(tree.branches[leaf]) for leaf in leaves)


def _places(tree: _Tree) -> dict[str, float]:
    """How far down each branch ends, the root (no letters) among them: in the middle of what it leads to."""
    leaves, places, y = tree.leaves, dict[str, float](), 0.0
    for leaf in leaves:
        half = (_spacing(len(leaves)) + _thickness(tree.branches[leaf])) / 2
        places[leaf] = y + half
        y += 2 * half
    for prefix, branches in tree.forks.items():
        places[prefix] = (places[branches[0]] + places[branches[-1]]) / 2
    return places


def _draw_tree(axes: Axes, tree: _Tree, width: int, pitch: int, *, leftmost: bool) -> None:
    small: dict[str, Any] = {"size": 10, "color": colour("muted"), "va": "center", "ha": "right"}
    axes.text(0, 12, f"{tree.number} · {display_name(tree.task, width // 7 - 4)}", weight=700, va="center")
    axes.text(width, 36, f"epoch {tree.epoch}", **small)
    for level, (before, end) in enumerate(pairwise((0, *tree.ends)), start=1):
        layers = str(end) if end == before + 1 else f"{before + 1}–{end}"
        word = ("layers " if before + 1 < end else "layer ") if leftmost and level == 1 else ""
        axes.text(_ROOT + level * pitch + 3.1 * len(layers), 36, word + layers, **small)
    places = {prefix: _TOP + y for prefix, y in _places(tree).items()}
    for prefix, branches in tree.forks.items():
        _draw_branches(axes, tree, prefix, branches, places, pitch)
    for level, end in enumerate(tree.ends, start=1):
        prefix = tree.chosen[:end]
        _draw_mark(axes, _ROOT + level * pitch, places[prefix], prefix[-1])
    for leaf in _named(tree, places):
        chosen, p = leaf == tree.chosen, tree.branches[leaf]
        axes.text(
            _ROOT + len(tree.ends) * pitch + (_MARK if chosen else 5),
            places[leaf],
            tree.name(leaf) + (f" {_share(p)}" if chosen or p >= 0.1 else ""),
            family="monospace",
            size=10.5 if chosen else 10,
            weight=700 if chosen else 400,
            color=colour("blue" if chosen else "muted"),
            va="center",
        )


def _draw_branches(
    axes: Axes, tree: _Tree, prefix: str, branches: Sequence[str], places: dict[str, float], pitch: int
) -> None:
    """From one fork to the next ones, side by side where they begin."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    x = _ROOT + tree.ends.index(len(branches[0])) * pitch
    y = places[prefix] - sum(_thickness(tree.branches[branch]) for branch in branches) / 2
    for branch in branches:
        p, end, chosen = tree.branches[branch], places[branch], tree.chosen.startswith(branch)
        begin = y + _thickness(p) / 2
        y += _thickness(p)
        middle = x + pitch / 2
        points = [(x, begin), (middle, begin), (middle, end), (x + pitch, end)]
        axes.add_patch(
            PathPatch(
                Path(points, [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]),
                fill=False,
                edgecolor=colour("blue" if chosen else "muted"),
                alpha=1 if chosen else 0.42 + 0.4 * p,
                linewidth=_thickness(p),
                capstyle="butt",
                zorder=2 + p + chosen,
            )
        )


def _draw_mark(axes: Axes, x: float, y: float, choice: str) -> None:
    """A cell of the map of layers, on the path that the task took."""
    from matplotlib.patches import Rectangle

    transfers, half = choice == "T", _MARK / 2
    axes.add_patch(
        Rectangle(
            (x - half, y - half),
            _MARK,
            _MARK,
            facecolor=colour("blue" if transfers else "faint"),
            edgecolor=colour("paper" if transfers else "blue"),
            linewidth=1,
            zorder=5,
        )
    )
    axes.text(
        x,
        y + 0.5,
        display_name(choice),
        size=8.5,
        weight=700,
        color=colour("paper" if transfers else "blue"),
        va="center",
        ha="center",
        zorder=6,
    )


def _named(tree: _Tree, places: dict[str, float]) -> list[str]:
    """The leaves that are named: no name runs into another one."""
    leaves = [leaf for leaf in tree.leaves if len(leaf) == len(tree.chosen)]
    every = len(leaves) <= _MOST_NAMED
    named: list[str] = []
    for leaf in sorted(leaves, key=lambda leaf: (leaf != tree.chosen, -tree.branches[leaf])):
        strong = every or not named or tree.branches[leaf] * tree.num_configurations > 1
        if strong and all(abs(places[leaf] - places[other]) >= _LINE for other in named):
            named.append(leaf)
    return named if every else named[:_NUM_STRONGEST]


def _caption(trees: Sequence[_Tree], num_trees: int) -> str:
    text = (
        "A tree for each task that was searched, at the last epoch in which the search weighed more than one "
        "configuration. It forks at each layer, from the input on the left to the output: up transfers (T), down "
        "learns its own weights (S). A branch is as thick as all configurations behind it are probable together; "
        "blue, with its probability, is the path that the task took."
    )
    if any(len(tree.ends) < len(tree.chosen) for tree in trees):
        text += " Layers that always go together are one fork and one letter."
    if any(tree.num_configurations > _MOST_WHOLE for tree in trees):
        text += f" Branches below {100 * _LEAST:.0f} % are left out."
    if num_trees > len(trees):
        text += f" Drawn are the last {len(trees)} of {num_trees} tasks."
    return text


def _in_words(tree: _Tree) -> str:
    share = _share(tree.branches[tree.chosen])
    return f"{display_name(tree.task, 40)}: {display_name(tree.chosen)}, {share} at epoch {tree.epoch}"


def _share(probability: float) -> str:
    return f"{100 * probability:.0f} %" if probability >= 0.01 else "<1 %"
