"""The page, table and figure of a comparison, drawn from the files of its runs alone."""

from __future__ import annotations

from dataclasses import replace
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING

from lasem.metrics import Statistic
from lasem.report.comparison import Comparison, MethodRow, load_comparison
from lasem.report.frame import Cell, Column, Frame, difference_cells, keep_together, mean_cell, render, write_text
from lasem.report.numbers import Unit, count, display_name, duration, in_words, percent, plus_minus, ratio
from lasem.report.verdict import WHOLE

if TYPE_CHECKING:
    from rich.table import Table

_QUANTITIES = (
    ("peak_accuracy", "Peak %", percent),
    ("final_accuracy", "Final %", percent),
    ("forgetting_ratio", "Final / peak", ratio),
    ("fraction_layers_shared", "Layers transferred %", percent),
    ("parameters_total", "Parameters", count),
    ("parameters_per_task", "Parameters a task", count),
    ("seconds_training", "Training time", duration),
)
_MARKED = ("peak_accuracy", "final_accuracy", "forgetting_ratio")
"""Where the highest is marked as the best."""


def write_comparison(directory: Path) -> Path:
    """Draw a comparison from the files of its runs, finished or not.

    Args:
        directory: the comparison's folder.

    Returns:
        The path of the page.

    Raises:
        StorageError: if it is no comparison's folder, or a file in it is damaged, or it cannot be written to.
    """
    directory = Path(directory)
    comparison = load_comparison(directory)
    # here, for matplotlib takes half a second to import and most commands draw nothing
    from lasem.report.figures.dots import draw_comparison

    frame, missing = methods_frame(comparison), unfinished_sentence(comparison)
    write_text(directory / "comparison.csv", frame.csv())
    write_text(
        directory / "comparison.md", f"{frame.markdown()}\n{_title(comparison)}.{f' {missing}' if missing else ''}\n"
    )
    drawing = draw_comparison([(row.name, row.values) for row in comparison.compared])
    if drawing is not None:
        drawing.write(directory)
    page = render(
        "comparison.html.jinja",
        name=display_name(comparison.name),
        verdict=keep_together(sentence(comparison)),
        progress=missing,
        comparison=comparison,
        frame=frame,
        drawing=drawing,
        config=comparison.common,
        environment=comparison.environment,
    )
    return write_text(directory / "comparison.html", page)


def comparison_table(directory: Path) -> Table:
    """Return the table of a comparison for ``rich.print``, with a caption that names what is unfinished.

    Raises:
        StorageError: if it is no comparison's folder, or a file in it is damaged.
    """
    comparison = load_comparison(directory)
    return methods_frame(comparison).console(_title(comparison), unfinished_sentence(comparison))


def methods_frame(comparison: Comparison) -> Frame:
    """Return a row for each method of which a seed is finished."""
    every = {name: [row.values[name] for row in comparison.compared] for name in _MARKED}
    best = {name: max((value.mean for value in of if value.num_seeds), default=nan) for name, of in every.items()}

    def cell(value: Statistic, name: str, unit: Unit) -> Cell:
        strong = name in _MARKED and len(comparison.compared) > 1 and unit(value.mean) == unit(best[name])
        written = mean_cell(value, Unit(unit.write), strong=strong)  # fractions in the file
        same = unit is count and value.deviation == 0  # such as the size of a network that every seed has
        return replace(written, below="") if same else written

    def difference(row: MethodRow) -> Cell:
        mean, p = difference_cells(row.to_best)
        if row.to_best is None or p.number is None:
            return mean
        return replace(mean, below=f"p {p.text}", number=row.to_best.mean, second=p.number)

    return Frame(
        columns=(
            Column(heading="Method", keys=("method", "num_seeds"), numeric=False),
            *(Column(heading=heading, keys=(f"{name}_mean", f"{name}_deviation")) for name, heading, _ in _QUANTITIES),
            Column(heading="Final − best's", keys=("final_accuracy_minus_best", "p_value"), console=False),
            Column(heading="Runs", numeric=False, console=False, fixed=True),
        ),
        rows=tuple(
            (
                Cell(
                    text=row.name,
                    below=f"{len(row.seeds)} of {len(comparison.seeds)} seeds" if row.unfinished else "",
                    second=len(row.seeds),
                ),
                *(cell(row.values[name], name, unit) for name, _, unit in _QUANTITIES),
                difference(row),
                Cell(text="", links=tuple((str(seed), f"{at}/report.html") for seed, at in row.seeds.items())),
            )
            for row in comparison.compared
        ),
    )


def sentence(comparison: Comparison) -> str:
    """Say what came out, in plain words."""
    rows = comparison.compared
    if not rows:
        return "No run has been finished yet, so there is nothing to compare."
    tasks = f"{comparison.num_tasks} task{'s' if comparison.num_tasks != 1 else ''}"
    if len(rows) == 1:
        return f"One method has learned {tasks}: {rows[0].name}, which ends at {_final(rows[0])}."
    ordered = sorted(rows, key=lambda row: -row.values["final_accuracy"].mean)
    distance = ordered[1].to_best
    how_surely = f", {in_words(distance)}" if distance is not None and distance.num_pairs else ""
    small = min(rows, key=lambda row: row.values["parameters_total"].mean)
    return (
        f"Of {len(rows)} methods on {tasks}, {ordered[0].name} answers best at the end, {_final(ordered[0])}; "
        f"{ordered[1].name} follows with {_final(ordered[1])}{how_surely}. {_keeping(rows)}, and "
        f"{small.name} is the smallest model ({count(small.values['parameters_total'].mean)} parameters)."
    )


def _keeping(rows: tuple[MethodRow, ...]) -> str:
    ratios = {row.name: row.values["forgetting_ratio"].mean for row in rows}
    kept = [row.name for row in rows if row.values["smallest_forgetting_ratio"].mean >= WHOLE]
    if kept:
        names = f"{', '.join(kept[:-1])} and {kept[-1]}" if len(kept) > 1 else kept[0]
        return f"{names} forget{'' if len(kept) > 1 else 's'} nothing"
    known = {label: value for label, value in ratios.items() if value == value}
    if not known:
        return "What was forgotten is not known"
    label = max(known, key=lambda label: known[label])
    return f"{label} keeps most of its peak ({ratio(known[label])})"


def unfinished_sentence(comparison: Comparison) -> str:
    """Say which runs are missing; empty if none is."""
    missing = [
        f"{row.name} (seed{'s' if len(row.unfinished) > 1 else ''} {', '.join(map(str, row.unfinished))})"
        for row in comparison.rows
        if row.unfinished
    ]
    return f"Unfinished: {'; '.join(missing)}. Means are over the finished seeds." if missing else ""


def _final(row: MethodRow) -> str:
    return f"{plus_minus(row.values['final_accuracy'], percent)} %"


def _title(comparison: Comparison) -> str:
    seeds = comparison.seeds
    over = f"mean ± deviation of {len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}"
    return f"{display_name(comparison.name)}, {over}"
