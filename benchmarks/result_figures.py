"""The figures of README and docs/results.md, and how good the search's choices are, from what docs/results holds.

python -m benchmarks.result_figures
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lasem.report.figures import colour, figure_style, new_figure

RESULTS = Path(__file__).parents[1] / "docs" / "results"
NAMES = {
    "head": "all transferred",
    "norm": "normalisation owned",
    "first-two": "first two stages owned",
    "last-two": "last two stages owned",
    "low-rank": "changes of low rank",
    "all-owned": "all owned (fine-tuned copy)",
    "evidence": "lasem's choice",
}
ASIDE = {"norm": -11, "first-two": 14}
"""Names that would meet another one, and how far they go up."""
LITTLE = ("head", "norm", "first-two", "low-rank")
"""Rows that own no more than the search may."""
TASKS = {
    "flowers": "flowers",
    "steel": "defects of steel",
    "latin": "Latin characters",
    "amazon": "things in shops",
    "cifar-0": "tiny photographs",
}


def main() -> None:
    """Draw all figures anew, and print how far the search is above the best static row of each task."""
    lines = (RESULTS / "unlike.jsonl").read_text().splitlines()
    results = list(map(json.loads, lines))
    with figure_style():
        draw_model([one for one in results if one["seed"] == 0]).savefig(
            RESULTS / "one_model.svg", metadata={"Date": None}
        )
        draw_price(results).savefig(RESULTS / "price.svg", metadata={"Date": None})
    for what, rows in (("all static rows", list(NAMES)[:-1]), ("those that own little", LITTLE)):
        above = gains(results, rows)
        print(f"the search above the best of {what}, points: {statistics.mean(above.values()):+.1f};", end=" ")
        print(", ".join(f"{task} {points:+.1f}" for task, points in above.items()))


def draw_model(results: list[dict[str, Any]]) -> Any:
    """Draw which layers five tasks share and which they own, with what each adds and how accurate it is."""
    chosen = {one["task"]: one for one in results if one["row"] == "evidence"}
    tasks = [name for name in TASKS if name in chosen]
    figure, axes = new_figure(720, 46 * len(tasks) + 80)
    for row, name in enumerate(tasks):
        letters = chosen[name]["configuration"]
        for place, letter in enumerate(letters):
            face = colour("blue" if letter == "T" else "orange")
            axes.barh(row, 0.94, 0.66, left=place, color=face, linewidth=0)
        axes.barh(row, 0.34, 0.66, left=len(letters), color=colour("orange"), linewidth=0)
        share, accuracy = owned_share(chosen[name], results), accuracy_of(results, name, "evidence")
        axes.text(len(letters) + 0.55, row, f"{accuracy:.1f} %", va="center")
        adds = f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.1f} %"
        axes.text(len(letters) + 1.75, row, adds, va="center")
    columns = [*range(1, 8), "head", "accuracy", "adds"]
    places = [*(n + 0.47 for n in range(7)), 7.17, 8.0, 9.0]
    axes.set(xlim=(0, 9.6), ylim=(len(tasks) - 0.5, -0.6), yticks=range(len(tasks)), xticks=places)
    axes.set_yticklabels([TASKS[name] for name in tasks], color=colour("ink"))
    axes.set_xticklabels(map(str, columns))
    axes.xaxis.tick_top()
    axes.spines["bottom"].set_visible(False)
    axes.set_xlabel("blue: shared with every task    orange: the task's own")
    return figure


def draw_price(results: list[dict[str, Any]]) -> Any:
    """Draw the mean accuracy of each row against the numbers that a task owns."""
    figure, axes = new_figure(720, 330)
    measured = compared(results)
    for row, name in NAMES.items():
        of_row = [one for one in results if one["row"] == row and (one["task"], one["seed"]) in measured]
        accuracy = statistics.mean(100 * float(one["accuracy"]) for one in of_row)
        known = [one for one in of_row if "parameters" in one]
        share = statistics.mean(owned_share(one, results) for one in known)
        face = colour("blue" if row == "evidence" else "muted")
        axes.plot(100 * share, accuracy, "o", color=face)
        place = (8, ASIDE.get(row, 0))
        axes.annotate(name, (100 * share, accuracy), place, textcoords="offset points", va="center", color=face)
    axes.set(xscale="log", xlim=(0.3, 600), xticks=[1, 10, 100])
    axes.set_xticklabels(["1 %", "10 %", "100 %"])
    axes.set(xlabel="numbers that a task owns, of the network's", ylabel="accuracy, %")
    axes.grid(axis="y")
    return figure


def gains(results: list[dict[str, Any]], rows: Iterable[str]) -> dict[str, float]:
    """Return how many points the search is above the best of some rows on each task.

    Which row is best for a task is decided by its other seeds, so that chance favours none of the two.
    """
    accuracy = {(one["row"], one["task"], one["seed"]): 100 * float(one["accuracy"]) for one in results}
    found: dict[str, list[float]] = {}
    for task, seed in sorted(compared(results)):
        others = [other for name, other in compared(results) if name == task and other != seed]
        if others:
            best = max(rows, key=lambda row: sum(accuracy[row, task, other] for other in others))
            found.setdefault(task, []).append(accuracy["evidence", task, seed] - accuracy[best, task, seed])
    return {task: statistics.mean(of_seeds) for task, of_seeds in found.items()}


def compared(results: list[dict[str, Any]]) -> set[tuple[str, int]]:
    """Return the tasks and seeds for which every row was measured."""
    rows: dict[tuple[str, int], set[str]] = {}
    for one in results:
        rows.setdefault((one["task"], one["seed"]), set()).add(one["row"])
    return {place for place, found in rows.items() if found >= set(NAMES)}


def accuracy_of(results: list[dict[str, Any]], task: str, row: str) -> float:
    """Return an accuracy in per cent."""
    return statistics.mean(100 * float(one["accuracy"]) for one in results if (one["task"], one["row"]) == (task, row))


def owned_share(one: dict[str, Any], results: list[dict[str, Any]]) -> float:
    """Return the numbers that a task owns, as a share of those that it owns with all layers."""
    whole: float = max(other.get("parameters", 0) for other in results if other["task"] == one["task"])
    return float(one["parameters"]) / whole


if __name__ == "__main__":
    main()
