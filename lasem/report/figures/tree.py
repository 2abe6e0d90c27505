"""The tree of configurations at the end of a search: a branch is as thick as its configurations are probable."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import fsum
from typing import TYPE_CHECKING, Any

from lasem.metrics import Run
from lasem.records import EpochRecord, TaskRecord
from lasem.report.figures import PAGE_WIDTH, Drawing, colour, figure_style, in_words, new_panels
from lasem.report.numbers import display_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_TREES = 12
_MAX_WHOLE = 64
"""With more configurations, branches that hold less than ``_LEAST`` are not drawn."""
_LEAST = 0.01
_MAX_NAMED = 16
"""Leaves that are all named; of more, the ``_NUM_STRONGEST`` that are more probable than by chance."""
_NUM_STRONGEST = 8
_LINE, _TITLE = 11.5, 62


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
        """The next prefixes of each prefix, from the whole configurations' last layers back to the root (empty)."""
        begins = dict(zip(self.ends, (0, *self.ends), strict=False))
        forks: dict[str, list[str]] = {}
        for prefix in sorted(self.branches, key=len, reverse=True):
            forks.setdefault(prefix[: begins[len(prefix)]], []).append(prefix)
        return forks

    @cached_property
    def leaves(self) -> list[str]:
        """Whole configurations, and prefixes of which nothing longer is drawn."""
        return [prefix for prefix in self.branches if prefix not in self.forks]

    @cached_property
    def heights(self) -> dict[str, float]:
        """The pixels that each leaf takes: its thickness, and space that is less the more leaves there are."""
        num = len(self.leaves)
        spacing = 11 if num <= _MAX_NAMED else max(3.5, 11 * _MAX_NAMED / num)
        return {leaf: spacing + _thickness(self.branches[leaf]) for leaf in self.leaves}

    @cached_property
    def places(self) -> dict[str, float]:
        """How far down each branch ends, the root among them: in the middle of its own branches."""
        places, y = dict[str, float](), 0.0
        for leaf, height in self.heights.items():
            places[leaf] = y + height / 2
            y += height
        for prefix, branches in self.forks.items():
            places[prefix] = (places[branches[0]] + places[branches[-1]]) / 2
        return places

    @property
    def named(self) -> list[str]:
        """The leaves that are named: no name runs into another one."""
        leaves = [leaf for leaf in self.leaves if len(leaf) == len(self.chosen)]
        every = len(leaves) <= _MAX_NAMED
        named: list[str] = []
        for leaf in sorted(leaves, key=lambda leaf: (leaf != self.chosen, -self.branches[leaf])):
            strong = every or not named or self.branches[leaf] * self.num_configurations > 1
            if strong and all(abs(self.places[leaf] - self.places[other]) >= _LINE for other in named):
                named.append(leaf)
        return named if every else named[:_NUM_STRONGEST]


@figure_style()
def draw_tree(run: Run) -> Drawing | None:
    """Draw how one seed's search weighed each task when it decided; None if it never weighed listed configurations."""
    every = [tree for task in run.tasks if (tree := _tree(task, run.epochs(task.task))) is not None]
    if not every:
        return None
    trees = every[-_MAX_TREES:]
    num_levels = max(len(tree.ends) for tree in trees)
    panel_width = max(240, 20 + num_levels * max(24, min(40, 176 // num_levels)) + 7 * (num_levels + 6))
    num_columns = max(1, min(3, len(trees), PAGE_WIDTH // panel_width))
    heights = [
        max(sum(tree.heights.values()) for tree in trees[at : at + num_columns]) + _TITLE
        for at in range(0, len(trees), num_columns)
    ]
    width = num_columns * panel_width + 10
    figure, panels = new_panels(len(trees), num_columns, width, heights)
    for position, (axes, tree) in enumerate(zip(panels, trees, strict=True)):
        _draw_tree(axes, tree, heights[position // num_columns] - _TITLE, panel_width)
    in_groups = any(len(tree.ends) < len(tree.chosen) for tree in trees)
    thinned = any(tree.num_configurations > _MAX_WHOLE for tree in trees)
    chosen = [(t, display_name(t.chosen), _share(t.branches[t.chosen])) for t in trees]
    ends = [(tree.task, f"{name}, {share} at epoch {tree.epoch}", None) for tree, name, share in chosen]
    return Drawing.of_run(
        figure,
        run,
        "configuration-tree",
        ("task", "prefix", "probability"),
        ((tree.task, prefix, p) for tree in trees for prefix, p in tree.branches.items()),
        f"Tree of configurations for each task. {in_words(ends)}.",
        groups=" Layers that always go together are one fork and one letter." if in_groups else "",
        least=f" Branches below {100 * _LEAST:.0f} % are left out." if thinned else "",
        last=f" Drawn are the last {len(trees)} of {len(every)} tasks." if len(every) > len(trees) else "",
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
    least = _LEAST if len(names) > _MAX_WHOLE else 0
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


def _draw_tree(axes: "Axes", tree: _Tree, height: float, width: int) -> None:
    num_levels = len(tree.ends)
    axes.set_title(f"{tree.number} · {display_name(tree.task, width // 7 - 12)}")
    axes.set_title(f"epoch {tree.epoch}", loc="right", size=10, weight="normal", color=colour("muted"))
    levels = [str(end) if end == start + 1 else f"{start + 1}–{end}" for start, end in pairwise((0, *tree.ends))]
    axes.xaxis.tick_top()
    axes.set_xticks(range(num_levels + 1), ["layer", *levels], size=10)
    axes.set(xlim=(-0.2, num_levels + (num_levels + 7) * 7 / 40), ylim=(height, 0), yticks=[])
    axes.spines[:].set_visible(False)
    for prefix, branches in tree.forks.items():
        _draw_branches(axes, tree, prefix, branches)
    for level, end in enumerate(tree.ends, start=1):
        transfers = tree.chosen[end - 1] == "T"
        faces = ("blue", "paper") if transfers else ("faint", "blue")
        box = {"facecolor": colour(faces[0]), "edgecolor": colour("blue"), "pad": 1.8, "linewidth": 1}
        style: dict[str, Any] = {"size": 8.5, "weight": "bold", "ha": "center", "va": "center"}
        letter, y = display_name(tree.chosen[end - 1]), tree.places[tree.chosen[:end]]
        axes.text(level, y, letter, color=colour(faces[1]), bbox=box, zorder=6, **style)
    for leaf in tree.named:
        chosen, p = leaf == tree.chosen, tree.branches[leaf]
        name = display_name("".join(leaf[end - 1] for end in tree.ends))  # a letter for each level
        axes.annotate(
            f"{name} {_share(p)}" if chosen or p >= 0.1 else name,
            (num_levels, tree.places[leaf]),
            (12 if chosen else 5, 0),
            textcoords="offset points",
            family="monospace",
            size=10,
            weight="bold" if chosen else "normal",
            color=colour("blue" if chosen else "muted"),
            va="center_baseline",
        )


def _draw_branches(axes: "Axes", tree: _Tree, prefix: str, branches: Sequence[str]) -> None:
    """From one fork to the next ones, side by side where they begin."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    x = tree.ends.index(len(branches[0]))
    y = tree.places[prefix] - sum(_thickness(tree.branches[branch]) for branch in branches) / 2
    for branch in branches:
        p, end, chosen = tree.branches[branch], tree.places[branch], tree.chosen.startswith(branch)
        begin = y + _thickness(p) / 2
        y += _thickness(p)
        points = [(x, begin), (x + 0.5, begin), (x + 0.5, end), (x + 1, end)]
        axes.add_patch(
            PathPatch(
                Path(points, [Path.MOVETO, *[Path.CURVE4] * 3]),
                fill=False,
                edgecolor=colour("blue" if chosen else "muted"),
                alpha=1 if chosen else min(1.0, 0.42 + 0.4 * p),
                linewidth=_thickness(p),
                capstyle="butt",
                clip_on=False,
                zorder=2 + p + chosen,
            )
        )


def _share(probability: float) -> str:
    return f"{100 * probability:.0f} %" if probability >= 0.01 else "<1 %"
