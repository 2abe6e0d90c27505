"""The page of a recipe: a table or figure of the paper in this project's data, drawn from the files of its runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from lasem.metrics import Run, Statistic, Summary, aggregate, statistic, summarise
from lasem.report.comparison import is_finished
from lasem.report.experiment import flat_settings, load_experiment, plain_settings
from lasem.report.figures.drawing import Drawing
from lasem.report.html import keep_together, render
from lasem.report.numbers import DASH, Unit
from lasem.report.significance import Cell
from lasem.report.text_files import to_csv, to_markdown, write_text


@dataclass(frozen=True, kw_only=True)
class PanelRuns:
    """One stream's finished runs, by method and seed."""

    key: str
    title: str
    """What people call the stream."""
    stands_for: str
    """The stream whose published numbers stand beside; another one where a person's own data take its place."""
    folder: str
    """Where the runs are, from the page's folder."""
    labels: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: dict[str, dict[int, Run]]
    settings: dict[str, dict[str, Any]]
    """What ``config.yaml`` says, by method; only of methods with a finished run."""

    @cached_property
    def summaries(self) -> dict[str, dict[int, Summary]]:
        """Each run's quantities."""
        return {label: {seed: summarise(run) for seed, run in of.items()} for label, of in self.runs.items()}

    def value(self, label: str, quantity: str) -> Statistic:
        """A quantity's mean and deviation over the finished seeds; NaN if there is none."""
        summaries = list(self.summaries.get(label, {}).values())
        return aggregate(summaries)[quantity] if summaries else statistic([])

    def runs_of(self, label: str) -> list[Run]:
        """A method's finished runs in the order of seeds."""
        return [self.runs[label][seed] for seed in self.seeds if seed in self.runs.get(label, {})]

    @property
    def missing(self) -> list[str]:
        """The runs that are not finished."""
        return [f"{label}-{seed}" for label in self.labels for seed in self.seeds if seed not in self.runs[label]]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table of a page."""

    key: str
    """Id on the page, and stem of its CSV file."""
    heading: str
    columns: tuple[str, ...]
    """The first one is of the rows' names."""
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


Section = Grid | tuple[str, Drawing | None]
"""A table, or a figure with its heading; None if there is nothing to draw."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a recipe has come to."""

    verdict: str
    """In plain words."""
    sections: tuple[Section, ...]
    """In the order of the page."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """What stands on a recipe's page beside what it has found."""

    name: str
    title: str
    about: str
    """What is asked, and what was published of it."""
    scale: str
    environment: dict[str, str] = field(default_factory=dict)
    command: str | None = None


Draw = Callable[[Sequence[PanelRuns]], Findings]


def mean_cell(value: Statistic, unit: Unit, *, strong: bool = False) -> Cell:
    """Mean, and below it the deviation over seeds."""
    return number_cell(value.mean, unit, deviation=value.deviation if value.num_seeds > 1 else None, strong=strong)


def number_cell(value: float, unit: Unit, *, deviation: float | None = None, strong: bool = False) -> Cell:
    """A number, and below it its deviation if there is one."""
    return Cell(
        text=unit(value),
        below="" if deviation is None else f"± {unit(deviation)}",
        number=unit.scale * value if value == value else None,
        deviation=None if deviation is None else unit.scale * deviation,
        strong=strong,
    )


def published_cell(value: tuple[float, float] | None, unit: Unit) -> Cell:
    """A published mean and deviation, or a dash."""
    if value is None:
        return Cell(text=DASH)
    return number_cell(value[0], unit, deviation=value[1] if value[1] == value[1] else None)


def load_panel(
    directory: Path, *, key: str, title: str, stands_for: str, folder: str, labels: Sequence[str], seeds: Sequence[int]
) -> PanelRuns:
    """Read the finished runs of some methods of a comparison's folder.

    Raises:
        StorageError: if a file is damaged.
    """
    runs: dict[str, dict[int, Run]] = {label: {} for label in labels}
    settings: dict[str, dict[str, Any]] = {}
    for label in labels:
        for seed in seeds:
            place = directory / folder / f"{label}-{seed}"
            if not (place / "seeds" / str(seed) / "records.jsonl").exists():
                continue
            experiment = load_experiment(place)
            for run in experiment.runs:
                if run.seed == seed and is_finished(experiment, run, place):
                    runs[label][seed] = run
                    settings.setdefault(label, plain_settings(experiment.config))
    return PanelRuns(
        key=key,
        title=title,
        stands_for=stands_for,
        folder=folder,
        labels=tuple(labels),
        seeds=tuple(seeds),
        runs=runs,
        settings=settings,
    )


def write_recipe(directory: Path, page: Page, panels: Sequence[PanelRuns], findings: Findings) -> Path:
    """Write the page, and its figures and tables as files, into a folder.

    Returns:
        The path of the page.

    Raises:
        StorageError: if it cannot be written to.
    """
    files = directory / page.name
    for section in findings.sections:
        if isinstance(section, Grid):
            write_text(files / f"{section.key}.csv", _csv(section))
            write_text(files / f"{section.key}.md", to_markdown(section.columns, map(_in_a_line, section.rows)))
        elif section[1] is not None:
            drawing = section[1]
            write_text(files / f"{drawing.name}.svg", drawing.svg)
            write_text(files / f"{drawing.name}.csv", to_csv(drawing.columns, drawing.rows))
    text = render(
        "recipe.html.jinja",
        package="paper",
        name=page.title,
        page=page,
        verdict=keep_together(findings.verdict),
        progress=unfinished_sentence(panels),
        panels=panels,
        sections=[_section(number, section) for number, section in enumerate(findings.sections)],
        settings=[(of.title, label, flat_settings(plain)) for of in panels for label, plain in of.settings.items()],
        config=None,
        environment=page.environment,
        command=page.command,
    )
    return write_text(directory / f"{page.name}.html", text)


def recipe_table(grid: Grid) -> Table:
    """A table of a page for ``rich.print``."""
    table = Table(title=Text(grid.heading))
    for number, column in enumerate(grid.columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number == 0)
    for row in grid.rows:
        table.add_row(*(Text(f"{c.text} {c.below}".strip(), style="bold" if c.strong else "") for c in row))
    return table


def unfinished_sentence(panels: Sequence[PanelRuns]) -> str:
    """Which runs are missing; empty if none is."""
    missing = [f"{panel.key}/{name}" for panel in panels for name in panel.missing]
    if not missing:
        return ""
    more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
    return f"Unfinished: {', '.join(missing[:8])}{more}. Means are over the finished seeds."


def _section(number: int, section: Section) -> dict[str, Any]:
    if isinstance(section, Grid):
        return {"grid": section, "heading": section.heading, "key": section.key, "drawing": None}
    heading, drawing = section
    return {
        "grid": None,
        "heading": heading,
        "key": drawing.name if drawing else f"figure-{number}",
        "drawing": drawing,
    }


def _in_a_line(row: Sequence[Cell]) -> list[str]:
    def written(cell: Cell) -> str:
        beside = cell.below if cell.deviation is not None or not cell.below else f"({cell.below})"
        return f"{cell.text} {beside}".strip()

    return [written(cell) for cell in row]


def _csv(grid: Grid) -> str:
    """Numbers unrounded, in the unit of their column; what stands below them in a column of its own."""
    columns: list[str] = []
    parts: list[list[object]] = []
    for number, name in enumerate(grid.columns):
        cells = [row[number] for row in grid.rows]
        columns.append(name)
        parts.append([cell.text if cell.number is None else cell.number for cell in cells])
        if any(cell.deviation is not None for cell in cells):
            columns.append(f"{name} ±")
            parts.append([cell.deviation for cell in cells])
        elif any(cell.below for cell in cells):
            columns.append(f"{name}, of")
            parts.append([cell.below for cell in cells])
    return to_csv(columns, zip(*parts, strict=True))
