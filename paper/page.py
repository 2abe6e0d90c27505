"""The page of a recipe: a table or figure of the paper in this project's data, drawn from the files of its runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lasem.metrics import Run, Statistic, Summary, aggregate, statistic, summarise
from lasem.report.comparison import is_finished
from lasem.report.experiment import flat_settings, load_experiment, plain_settings
from lasem.report.figures import Drawing
from lasem.report.frame import Cell, Column, Frame, keep_together, number_cell, render, write_text
from lasem.report.numbers import DASH, Unit

if TYPE_CHECKING:
    from rich.table import Table


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

    @property
    def frame(self) -> Frame:
        """Columns and rows; in CSV, deviations and what numbers are of have columns of their own."""
        columns = []
        for number, name in enumerate(self.columns):
            cells = [row[number] for row in self.rows]
            deviation = any(cell.second is not None for cell in cells)
            below = (f"{name} ±",) if deviation else (f"{name}, of",) if any(cell.below for cell in cells) else ()
            columns.append(Column(heading=name, keys=(name, *below), numeric=number > 0))
        return Frame(columns=tuple(columns), rows=self.rows)


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
            write_text(files / f"{section.key}.csv", section.frame.csv())
            write_text(files / f"{section.key}.md", section.frame.markdown())
        elif section[1] is not None:
            section[1].write(files)
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
    """Return a table of a page for ``rich.print``."""
    return grid.frame.console(grid.heading)


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
