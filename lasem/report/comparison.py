"""A comparison from its files: page, table and figure, a row for each method, mean and deviation over seeds.

``comparison.json`` in the folder says which runs belong to it; everything else is read from the runs themselves, each
in ``METHOD-SEED`` next to it.
"""

import os
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from lasem.files import check_links
from lasem.metrics import PairedDifference, Statistic, aggregate, paired_difference, summarise
from lasem.report.brought import Brought, brought, reference_of
from lasem.report.experiment import INDEX as INDEX
from lasem.report.experiment import finished_runs, plain_settings, read_environment
from lasem.report.experiment import read_index as read_index
from lasem.report.frame import Cell, Column, Frame, difference_cells, keep_together, mean_cell, render, write_text
from lasem.report.numbers import (
    Unit,
    count,
    display_name,
    duration,
    in_words,
    method_name,
    percent,
    plus_minus,
    ratio,
)
from lasem.report.page import WHOLE
from lasem.settings import flat, to_yaml

if TYPE_CHECKING:
    from rich.table import Table

_OF_A_RUN = ("preset", "seeds")
"""Settings that say nothing of a method."""

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


@dataclass(frozen=True, kw_only=True)
class MethodRow:
    """One method over its finished seeds."""

    label: str
    values: dict[str, Statistic]
    """By the names of a Summary's quantities; empty if no seed is finished."""
    seeds: dict[int, str]
    """The finished seeds, and the address of each one's folder, from the comparison's."""
    unfinished: tuple[int, ...]
    settings: dict[str, Any]
    """What sets the method apart, by setting (``search.name``)."""
    to_best: PairedDifference | None = None
    """Final accuracies minus those of the method that answers best at the end; None for that one itself."""

    @property
    def name(self) -> str:
        """The label as a person reads it."""
        return method_name(self.label)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Methods side by side on one stream."""

    name: str
    rows: tuple[MethodRow, ...]
    seeds: tuple[int, ...]
    num_tasks: int
    common: str
    """The settings that all methods agree on, as YAML."""
    environment: dict[str, str]
    brought: Brought | None
    """What the method brought that answers best at the end, but for single-task learning and logistic regression."""

    @property
    def compared(self) -> tuple[MethodRow, ...]:
        """The methods of which at least one seed is finished."""
        return tuple(row for row in self.rows if row.seeds)


def load_comparison(directory: Path) -> Comparison:
    """Read the folder of a comparison, finished or not; StorageError if it is none, or a file in it is damaged."""
    directory = Path(directory)
    check_links(directory)
    labels, seeds = read_index(directory / INDEX)
    found = finished_runs(directory, labels, seeds)
    common, own = _split_settings({label: next(iter(of.values()))[1] for label, of in found.items() if of})
    runs = {label: [run for run, _ in of.values()] for label, of in found.items()}
    values = {label: aggregate([summarise(run) for run in of]) if of else {} for label, of in runs.items()}
    best = max((label for label in labels if values[label]), key=lambda x: values[x]["final_accuracy"].mean, default="")
    others = [label for label in labels if values[label] and label != best]
    kinds = {label: reference_of(next(iter(found[label].values()))[1]) for label in labels if values[label]}
    references = {kind: runs[label] for label, kind in reversed(kinds.items()) if kind}  # the first of each kind
    models = [label for label, kind in kinds.items() if not kind]
    model = max(models, key=lambda x: values[x]["final_accuracy"].mean, default="")
    distances = {label: paired_difference(runs[label], runs[best], "final_accuracies") for label in others}
    rows = [
        MethodRow(
            label=label,
            values=values[label],
            seeds={seed: quote(os.fsencode(f"{label}-{seed}")) for seed in found[label]},
            unfinished=tuple(seed for seed in seeds if seed not in found[label]),
            settings=own.get(label, {}),
            to_best=distances.get(label),
        )
        for label in labels
    ]
    return Comparison(
        name=directory.resolve().name,
        rows=tuple(rows),
        seeds=seeds,
        num_tasks=max((len(run.tasks) for of in runs.values() for run in of), default=0),
        common=common,
        environment=read_environment(directory / INDEX, "environment"),
        brought=brought(method_name(model), runs[model], references) if model and references else None,
    )


def _split_settings(configs: dict[str, str | None]) -> tuple[str, dict[str, dict[str, Any]]]:
    """What all agree on, as YAML, and what each has for itself."""
    settings = {
        label: flat({part: of for part, of in plain_settings(config).items() if part not in _OF_A_RUN})
        for label, config in configs.items()
    }
    same = {
        name: value
        for name, value in next(iter(settings.values()), {}).items()
        if not name.startswith(("method.", "sharing.", "search."))
        and all(name in of and of[name] == value for of in settings.values())
    }
    shared: dict[str, Any] = {}
    for name, value in same.items():
        *parts, last = name.split(".")
        place = shared
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = value
    own = {label: {n: v for n, v in of.items() if n not in same} for label, of in settings.items()}
    return to_yaml(shared) if shared else "", own


def write_comparison(directory: Path) -> Path:
    """Draw a comparison from its files, finished or not; return the path of the page. Errors of ``load_comparison``."""
    directory = Path(directory)
    comparison = load_comparison(directory)
    # here, for matplotlib takes half a second to import and most commands draw nothing
    from lasem.report.figures.bars import draw_comparison

    frame, missing = methods_frame(comparison), unfinished_sentence(comparison)
    write_text(directory / "comparison.csv", frame.csv())
    write_text(
        directory / "comparison.md", f"{frame.markdown()}\n{_title(comparison)}.{f' {missing}' if missing else ''}\n"
    )
    drawings = {
        "figure": draw_comparison([(row.name, row.values) for row in comparison.compared]),
        "tasks": None if comparison.brought is None else comparison.brought.draw("tasks"),
    }
    for drawing in filter(None, drawings.values()):
        drawing.write(directory)
    page = render(
        "comparison.html.jinja",
        name=display_name(comparison.name),
        verdict=keep_together(sentence(comparison)),
        progress=missing,
        comparison=comparison,
        frame=frame,
        drawings=drawings,
        config=comparison.common,
        environment=comparison.environment,
    )
    return write_text(directory / "comparison.html", page)


def comparison_table(directory: Path) -> "Table":
    """Return the table for ``rich.print``, its caption naming what is unfinished; errors of ``load_comparison``."""
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
    brought = "" if comparison.brought is None else f" {comparison.brought.sentence}"
    return (
        f"Of {len(rows)} methods on {tasks}, {ordered[0].name} answers best at the end, {_final(ordered[0])}; "
        f"{ordered[1].name} follows with {_final(ordered[1])}{how_surely}. {_keeping(rows)}, and "
        f"{small.name} is the smallest model ({count(small.values['parameters_total'].mean)} parameters).{brought}"
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
