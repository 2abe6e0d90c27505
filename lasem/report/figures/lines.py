"""Lines: accuracy over a run, and the probabilities of configurations while a task is learned."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lasem.metrics import Matrix, Run
from lasem.records import EpochRecord, TaskRecord
from lasem.report.figures import (
    PAGE_WIDTH,
    Drawing,
    caption,
    colour,
    figure_style,
    in_words,
    new_figure,
    new_panels,
    ramp,
    thin,
)
from lasem.report.numbers import display_name, short_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_LABELS = 14
_MAX_LINES = 32
"""Lines in a panel; the other configurations are one band, so that 256 of them stay readable."""
_RUNNERS_UP = (("orange", "--"), ("green", "-."))


@figure_style()
def draw_accuracy_over_time(run: Run) -> Drawing | None:
    """Draw one seed's accuracies over the whole run; None if nothing was trained yet."""
    recorded = {task.task: task.num_epochs for task in run.tasks}
    names = [*recorded, *([run.unfinished_task] if run.unfinished_task is not None else [])]
    if not names:
        return None
    starts, passed = {}, 0
    validation, test = {}, {name: dict[int, float]() for name in names}
    for name in names:
        epochs = run.epochs(name)
        starts[name] = passed
        validation[name] = {passed + epochs[at].epoch: epochs[at].valid_accuracy for at in thin(len(epochs), most=200)}
        passed += max(recorded.get(name, 0), epochs[-1].epoch if epochs else 0)
        for earlier, accuracy in run.evaluations.get(name, {}).items():
            if earlier in starts:
                test[earlier][starts[name] + recorded[name]] = accuracy
    end = max(1, *(epoch for curves in (validation, test) for curve in curves.values() for epoch in curve))
    figure, axes = new_figure(PAGE_WIDTH, 400)
    for position, name in enumerate(names):
        style: dict[str, Any] = {"color": ramp(position, len(names))}
        curve = validation[name]
        percents = [100 * accuracy for accuracy in curve.values()]
        axes.plot([*curve], percents, linewidth=0.9, alpha=0.55, marker="." if len(curve) == 1 else "", **style)
        style |= {"marker": "o" if len(test[name]) <= 40 else "", "markersize": 4.5 if len(names) <= 20 else 3}
        percents = [100 * accuracy for accuracy in test[name].values()]
        axes.plot([*test[name]], percents, zorder=3, markeredgecolor=colour("paper"), **style)
    low, high = axes.get_ylim()
    axes.set(xlim=(0, end), ylim=(max(0.0, low), min(100.5, high)))
    axes.set(xlabel="epochs since the run began", ylabel="accuracy in %")
    axes.grid(axis="y")
    begins = np.array([*starts.values(), end])
    axes.vlines(begins[1:-1], 0, 1, transform=axes.get_xaxis_transform(), color=colour("line"), linewidth=0.8)
    every = slice(None, None, -(-len(names) // 25))
    above = axes.secondary_xaxis("top")
    above.set_xticks(((begins[1:] + begins[:-1]) / 2)[every], [str(n + 1) for n in range(len(names))][every])
    above.set_xlabel("task")
    above.spines["top"].set_visible(False)
    _label_ends(axes, [(name, position) for position, name in enumerate(names) if test[name]], test, len(names))
    return Drawing.of_run(
        figure,
        run,
        "accuracy-over-time",
        ("split", "task", "cumulative_epoch", "accuracy"),
        (
            (split, name, epoch, accuracy)
            for split, curves in (("validation", validation), ("test", test))
            for name in names
            for epoch, accuracy in curves[name].items()
        ),
        f"Line chart of accuracy over {end:.0f} epochs and {len(names)} tasks.",
    )


def _label_ends(
    axes: "Axes", tasks: Sequence[tuple[str, int]], test: dict[str, dict[int, float]], num_tasks: int
) -> None:
    """Name the lines at their ends, the labels moved apart; of many tasks some, the last one among them."""
    chosen = [*tasks[:: -max(1, -(-len(tasks) // _MAX_LABELS))]]
    low, high = axes.get_ylim()
    pitch = 0.055  # of the axes' height
    ends = sorted(((100 * [*test[name].values()][-1] - low) / (high - low), name, n) for name, n in chosen)
    places: list[float] = []
    for y, _, _ in ends:
        places.append(max(y, places[-1] + pitch) if places else y)
    for k in reversed(range(len(places))):  # back below the top
        places[k] = min(places[k], (places[k + 1] if k + 1 < len(places) else 1 + pitch) - pitch)
    for place, (y, name, position) in zip(places, ends, strict=True):
        line = {"arrowstyle": "-", "color": ramp(position, num_tasks), "shrinkA": 2, "shrinkB": 3, "relpos": (0, 0.5)}
        axes.annotate(
            f"{position + 1} · {display_name(name, 17)}",
            (1, y),
            (1.03, place),
            "axes fraction",
            "axes fraction",
            va="center",
            size=10,
            arrowprops=line,
        )


@dataclass(frozen=True)
class _Search:
    """How one task was searched."""

    number: int
    task: str
    epochs: NDArray[np.int64]
    """Or the mini-batches of the search, where ``counts`` says so."""
    counts: str
    """``epoch`` or ``mini-batch``."""
    probabilities: Matrix
    """Shape (epochs, configurations)."""
    names: tuple[str, ...]
    order: tuple[int, ...]
    """Configurations by their highest probability, the chosen or leading one first."""
    commit_epoch: int | None
    best_epoch: int | None
    frontier: tuple[tuple[int, str, float], ...] = ()
    """Of a search by evidence: numbers that a task would own, the configuration, accuracy outside of the training."""
    valid_accuracy: float = math.nan
    """Of what the task got."""

    def rows(self) -> "list[tuple[str, int, str, float]]":
        """What the panel shows, for CSV."""
        if self.frontier:
            return [("numbers owned", *point) for point in self.frontier]
        return [
            (self.counts, int(self.epochs[at]), self.names[c], float(self.probabilities[at, c]))
            for c in self.order[:_MAX_LINES]
            for at in self.drawn
        ]

    @property
    def drawn(self) -> list[int]:
        """The epochs that are drawn, among them those that are marked."""
        marked = [at for at in (self.commit_epoch, self.best_epoch) if at is not None]
        return thin(len(self.epochs), np.searchsorted(self.epochs, marked).tolist())


@figure_style()
def draw_probabilities(run: Run) -> Drawing | None:
    """Draw how one seed's search weighed configurations; None if no task had more than one to choose from."""
    searches = [_search(run, n, task.task, task.configurations, task) for n, task in enumerate(run.tasks, start=1)]
    if run.unfinished_task is not None:
        # a task's configurations are named in its last record, which this task does not have yet
        named = {len(task.configurations): task.configurations for task in run.tasks}
        num = len(run.epochs(run.unfinished_task)[-1].probabilities)
        searches.append(_search(run, len(run.tasks) + 1, run.unfinished_task, named.get(num, ()), None))
    if all(len(search.names) < 2 for search in searches):
        return None
    num_columns = min(len(searches), 3 if len(searches) <= 12 else 4)
    rows = -(-len(searches) // num_columns)
    width = round(PAGE_WIDTH * num_columns / max(3, num_columns))
    figure, panels = new_panels(len(searches), num_columns, width, [200 if num_columns < 4 else 160] * rows)
    by_evidence = any(search.frontier for search in searches)
    for axes, search in zip(panels, searches, strict=True):
        letters = (width // num_columns - 40) // 7
        title = f"{search.number} · {display_name(search.task, letters - 5)}"
        axes.set_title(title, pad=6 if by_evidence else 20)  # the names of lines are below it
        if search.frontier:
            _draw_frontier(axes, search, letters // 2)
        else:
            _draw_search(axes, search, letters)
    chosen = [
        (search.task, search.names[search.order[0]] if search.order else "no configuration", search.commit_epoch)
        for search in searches
    ]
    return Drawing.of(
        figure,
        f"seed-{run.seed}-configuration-probabilities",
        ("task", "counted", "at", "configuration", "probability_or_accuracy"),
        ((search.task, *row) for search in searches for row in search.rows()),
        caption=caption("frontier" if by_evidence else "configuration-probabilities"),
        description=f"How each task was searched. {in_words(chosen)}.",
    )


def _search(run: Run, number: int, task: str, names: tuple[str, ...], record: TaskRecord | None) -> _Search:
    epochs = run.epochs(task)
    num = max([len(names), *(len(epoch.probabilities) for epoch in epochs)])
    at, counts = [epoch.epoch for epoch in epochs], "epoch"
    probabilities = np.zeros((len(epochs), num))
    for row, epoch in zip(probabilities, epochs, strict=True):
        # a phase after the search trains what was chosen and knows of no other configuration
        chosen_alone = len(epoch.probabilities) == 1 < num and epoch.configuration in names
        first = names.index(epoch.configuration) if chosen_alone else 0
        row[first : first + len(epoch.probabilities)] = epoch.probabilities
    if traced := _traced(epochs, num):
        at, counts, probabilities = [*traced], "mini-batch", np.array([*traced.values()])
    if record is not None and record.configuration in names:
        first = names.index(record.configuration)
    else:  # not chosen yet: the one that leads
        first = int(probabilities[-1].argmax()) if probabilities.size else 0
    highest = probabilities.max(axis=0, initial=0)
    return _Search(
        number,
        task,
        np.array(at, dtype=np.int64),
        counts,
        probabilities,
        names=tuple(names[c] if c < len(names) else f"number {c + 1}" for c in range(num)),
        order=tuple(sorted(range(num), key=lambda c: (c != first, -highest[c], c))),
        commit_epoch=record.commit_epoch if record and not traced else None,
        best_epoch=record.best_epoch if record and not traced else None,
        frontier=_frontier(record),
        valid_accuracy=record.valid_accuracy if record else math.nan,
    )


def _frontier(record: TaskRecord | None) -> tuple[tuple[int, str, float], ...]:
    if record is None or not record.frontier or not record.frontier_owned:
        return ()
    return tuple((record.frontier_owned.get(name, 0), name, share) for name, share in record.frontier.items())


def _traced(epochs: Sequence[EpochRecord], num: int) -> dict[int, tuple[float, ...]]:
    """Return probabilities by mini-batches of the search; empty if records do not have them."""
    found: dict[int, tuple[float, ...]] = {}
    before = 0
    for epoch in epochs:
        if epoch.num_batches is None:
            break
        rows = [epoch.trace[k : k + num] for k in range(0, len(epoch.trace), num)] if epoch.trace else []
        for k, row in enumerate(rows[:-1], start=1):
            found[before + -(-k * epoch.num_batches // len(rows))] = row
        before += epoch.num_batches
        found[before] = epoch.probabilities
    return {at: row for at, row in found.items() if len(row) == num}


def _draw_frontier(axes: "Axes", search: _Search, letters: int) -> None:
    points, alone = search.frontier, 100 * search.valid_accuracy
    most = max(1, points[-1][0])
    owned, shares = [point[0] for point in points], [100 * point[2] for point in points]
    axes.plot(owned, shares, "o-", color=colour("blue"), linewidth=1.2, markersize=5)
    axes.axhline(alone, color=colour("orange"), linewidth=1.2, linestyle="--")
    style: dict[str, Any] = {"textcoords": "offset points", "size": 9}
    for at, y, side in ((0, -13, "left"), (len(points) - 1, 6, "right"))[: len(points)]:  # the line rises between them
        axes.annotate(display_name(points[at][1], letters), (owned[at], shares[at]), (0, y), ha=side, **style)
    got = display_name(search.names[search.order[0]], letters)
    axes.annotate(got, (0.5 * most, alone), (0, 2), ha="center", color=colour("orange"), **style)
    axes.margins(y=0.3)
    axes.set(xlim=(-0.06 * most, 1.06 * most), xticks=sorted({0, points[-1][0]}))
    axes.xaxis.set_major_formatter(lambda value, _: short_count(value))
    axes.locator_params(axis="y", nbins=4)
    axes.grid(axis="y")
    axes.set_xlabel("numbers owned", size=10, labelpad=0)
    axes.set_ylabel("accuracy, %", size=10)


def _draw_search(axes: "Axes", search: _Search, letters: int) -> None:
    if len(search.names) < 2 or not len(search.epochs):
        reason = "one configuration: nothing to choose" if len(search.epochs) else "no epochs recorded"
        axes.text(0.5, 0.5, reason, ha="center", va="center", color=colour("muted"), size=10)
        axes.set_axis_off()
        return
    epochs, table, order = search.epochs[search.drawn], search.probabilities[search.drawn], list(search.order)
    marker = "." if len(epochs) == 1 else ""  # a line through one point shows nothing
    best, *runners_up = order[: 1 + len(_RUNNERS_UP)]
    if rest := order[_MAX_LINES:]:
        axes.fill_between(epochs, 0, table[:, rest].max(axis=1), color=colour("line"), linewidth=0)
    others = order[1 + len(_RUNNERS_UP) : _MAX_LINES]
    axes.plot(epochs, table[:, others], color=colour("rest"), linewidth=0.7, marker=marker)
    lines = axes.plot(epochs, table[:, best], color=colour("blue"), linewidth=2.6, marker=marker, zorder=4)
    for c, (name, dashes) in zip(runners_up, _RUNNERS_UP, strict=False):
        lines += axes.plot(epochs, table[:, c], dashes, color=colour(name), linewidth=1.2, marker=marker, zorder=3)
    # the leading ones are named above the panel, as many as fit
    names = [display_name(search.names[c], letters - 4) for c in (best, *runners_up)]
    num = max(1, min(len(names), letters // (len(names[0]) + 5)))
    key = axes.legend(
        lines[:num],
        names[:num],
        ncols=num,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0,
        borderpad=0.2,
        handletextpad=0.4,
        columnspacing=1,
        prop={"family": "monospace", "size": 10},
    )
    key.set_in_layout(False)
    key.get_texts()[0].set_fontweight("bold")
    first, last = int(epochs[0]), int(epochs[-1])
    ticks = {first, last}
    if (commit := search.commit_epoch) is not None:
        axes.axvline(commit, color=colour("muted"), linewidth=1, linestyle="--")
        ticks |= {commit} if 0.12 < (commit - first) / max(1, last - first) < 0.88 else set()
    if (at := search.best_epoch) is not None and at in search.epochs:
        height = search.probabilities[np.searchsorted(search.epochs, at), best]
        axes.plot([at], [height], "o", color=colour("blue"), markeredgecolor=colour("paper"), clip_on=False, zorder=5)
    margin = 0.5 if first == last else 0
    axes.set(xlim=(first - margin, last + margin), ylim=(-0.02, 1.03), xticks=sorted(ticks))
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.grid(axis="y")
    axes.set_xlabel("epoch" if search.counts == "epoch" else "mini-batch of the search", size=10, labelpad=0)
