"""The page of a comparison, its table and its figure, drawn from the files of its runs alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.table import Table
from rich.text import Text

from lasem.metrics import Statistic
from lasem.report.comparison import Comparison, MethodRow, load_comparison
from lasem.report.html import keep_together, render
from lasem.report.numbers import count, display_name, duration, percent, plus_minus, ratio
from lasem.report.significance import Cell, difference_cell, in_words
from lasem.report.text_files import to_csv, to_markdown, write_text
from lasem.report.verdict import WHOLE

Write = Callable[[float], str]

COLUMNS: tuple[tuple[str, str, Write, int], ...] = (
    ("peak_accuracy", "Peak %", percent, 1),
    ("final_accuracy", "Final %", percent, 1),
    ("forgetting_ratio", "Final / peak", ratio, 1),
    ("fraction_layers_shared", "Layers transferred %", percent, 0),
    ("parameters_total", "Parameters", count, 0),
    ("parameters_per_task", "Parameters a task", count, 0),
    ("seconds_training", "Training time", duration, 0),
)
"""(quantity, heading, how it is written, 1 where the highest is marked as the best)."""


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
    from lasem.report.figures.comparison import draw_comparison

    write_text(directory / "comparison.csv", _csv(comparison))
    write_text(directory / "comparison.md", _markdown(comparison))
    drawing = draw_comparison([(row.name, row.values) for row in comparison.compared])
    if drawing is not None:
        write_text(directory / f"{drawing.name}.svg", drawing.svg)
        write_text(directory / f"{drawing.name}.csv", to_csv(drawing.columns, drawing.rows))
    page = render(
        "comparison.html.jinja",
        name=display_name(comparison.name),
        verdict=keep_together(sentence(comparison)),
        progress=unfinished_sentence(comparison),
        comparison=comparison,
        headings=[*(heading for _, heading, _, _ in COLUMNS), "Final − best's"],
        cells=_cells(comparison),
        drawing=drawing,
        config=comparison.common,
        environment={k: v for k, v in comparison.environment.items() if k != "command"},
        command=comparison.environment.get("command"),
    )
    return write_text(directory / "comparison.html", page)


def comparison_table(directory: Path) -> Table:
    """The table of a comparison for ``rich.print``; what is unfinished below.

    Raises:
        StorageError: if it is no comparison's folder, or a file in it is damaged.
    """
    comparison = load_comparison(directory)
    table = Table(title=Text(_title(comparison)), caption=Text(unfinished_sentence(comparison)))
    table.add_column("Method", no_wrap=True)
    for _, heading, _, _ in COLUMNS:
        table.add_column(heading, justify="right")
    best = _best(comparison)
    for row in comparison.compared:
        cells = [
            Text(_written(row.values[name], write), style="bold" if row.label in best[name] else "")
            for name, _, write, _ in COLUMNS
        ]
        table.add_row(Text(row.name), *cells)
    return table


def sentence(comparison: Comparison) -> str:
    """What came out, in plain words."""
    rows = comparison.compared
    if not rows:
        return "No run has been finished yet, so there is nothing to compare."
    tasks = f"{comparison.num_tasks} task{'s' if comparison.num_tasks != 1 else ''}"
    if len(rows) == 1:
        return f"One method has learned {tasks}: {rows[0].name}, which ends at {_final(rows[0])}."
    ordered = sorted(rows, key=lambda row: -row.values["final_accuracy"].mean)
    small = min(rows, key=lambda row: row.values["parameters_total"].mean)
    return (
        f"Of {len(rows)} methods on {tasks}, {ordered[0].name} answers best at the end, {_final(ordered[0])}; "
        f"{ordered[1].name} follows with {_final(ordered[1])}{_how_surely(ordered[1])}. {_keeping(rows)}, and "
        f"{small.name} is the smallest model ({count(small.values['parameters_total'].mean)} parameters)."
    )


def _how_surely(row: MethodRow) -> str:
    difference = row.to_best
    return f", {in_words(difference)}" if difference is not None and difference.num_pairs else ""


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
    """Which runs are missing; empty if none is."""
    missing = [
        f"{row.name} (seed{'s' if len(row.unfinished) > 1 else ''} {', '.join(map(str, row.unfinished))})"
        for row in comparison.rows
        if row.unfinished
    ]
    return f"Unfinished: {'; '.join(missing)}. Means are over the finished seeds." if missing else ""


def _final(row: MethodRow) -> str:
    return f"{plus_minus(row.values['final_accuracy'], percent)} %"


def _title(comparison: Comparison) -> str:
    several = len(comparison.seeds) > 1
    name = display_name(comparison.name)
    return (
        f"{name}, mean ± deviation of {len(comparison.seeds)} seeds"
        if several
        else f"{name}, seed {comparison.seeds[0]}"
    )


def _best(comparison: Comparison) -> dict[str, set[str]]:
    """For each quantity that is marked the methods with the highest mean as it is written."""
    best: dict[str, set[str]] = {}
    for name, _, write, marked in COLUMNS:
        means = {row.label: row.values[name].mean for row in comparison.compared}
        known = [mean for mean in means.values() if mean == mean]
        top = write(max(known)) if marked and len(means) > 1 and known else ""
        best[name] = {label for label, mean in means.items() if top and write(mean) == top}
    return best


def _cells(comparison: Comparison) -> dict[str, list[Cell]]:
    """Each method's in every column."""
    best = _best(comparison)

    def cell(label: str, name: str, value: Statistic, write: Write) -> Cell:
        mean, _, spread = _written(value, write).partition(" ± ")
        number = value.mean if value.mean == value.mean else None
        return Cell(text=mean, below=f"± {spread}" if spread else "", number=number, strong=label in best[name])

    return {
        row.label: [
            *(cell(row.label, name, row.values[name], write) for name, _, write, _ in COLUMNS),
            difference_cell(row.to_best),
        ]
        for row in comparison.compared
    }


def _csv(comparison: Comparison) -> str:
    columns = ["method", "num_seeds", *(f"{name}_{what}" for name, *_ in COLUMNS for what in ("mean", "deviation"))]
    columns += ["final_accuracy_minus_best", "p_value"]
    rows = [
        [
            row.name,
            len(row.seeds),
            *(n if n == n else None for name, *_ in COLUMNS for n in _numbers(row.values[name])),
            *((row.to_best.mean, row.to_best.p_value) if row.to_best and row.to_best.num_pairs else (None, None)),
        ]
        for row in comparison.compared
    ]
    return to_csv(columns, rows)


def _written(value: Statistic, write: Write) -> str:
    """Mean and deviation; a number that is the same for every seed, such as of parameters, stands alone."""
    return write(value.mean) if write is count and value.deviation == 0 else plus_minus(value, write)


def _numbers(value: Statistic) -> tuple[float, float]:
    return value.mean, value.deviation


def _markdown(comparison: Comparison) -> str:
    headings = ["method", *(heading.lower() for _, heading, _, _ in COLUMNS)]
    rows = [
        [row.name, *(_written(row.values[name], write) for name, _, write, _ in COLUMNS)] for row in comparison.compared
    ]
    missing = unfinished_sentence(comparison)
    return f"{to_markdown(headings, rows)}\n{_title(comparison)}.{f' {missing}' if missing else ''}\n"
