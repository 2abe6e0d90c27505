"""Tables and figures of methods: rows that name a method, columns and marks that read its runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, final

from lasem.metrics import PairedDifference, Statistic, paired_difference, statistic
from lasem.report.figures import Drawing
from lasem.report.figures.bars import Dot, draw_dots
from lasem.report.frame import Cell, Column, Frame, difference_cells, mean_cell
from lasem.report.numbers import Unit, in_words, percent, ratio
from paper.published import Table
from paper.runs import PanelRuns

SPREAD: Final = "Mean over tasks and seeds ± standard deviation over seeds"
LINES: Final = "Lines reach one standard deviation over seeds to each side."
PAIRED: Final = "paired over seeds and tasks; p of a two-sided sign-flip test"
ACCURACY_AXIS: Final = "peak accuracy in %, mean over tasks"
KEPT_AXIS: Final = "forgetting ratio, 1 is nothing forgotten"


@final
@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table of a page."""

    key: str
    """Id on the page, and stem of its CSV file."""
    heading: str
    frame: Frame
    note: str


Section = Grid | tuple[str, Drawing | None]
"""A table, or a figure with its heading; None if there is nothing to draw."""


@final
@dataclass(frozen=True)
class Row:
    """A method of a panel."""

    title: str
    of: PanelRuns
    label: str
    name: str = ""
    """What the verdict calls it."""

    @property
    def sharing(self) -> str:
        """The end of the label."""
        return self.label.rpartition("-")[2]


@final
@dataclass(frozen=True)
class Columns:
    """One column of a table, or several that belong together."""

    headings: tuple[str, ...]
    cells: Callable[[Row], Sequence[Cell]]


def table(key: str, heading: str, first: str, rows: Iterable[Row], columns: Sequence[Columns], note: str) -> Grid:
    """Fill a table; ``first`` is the heading of the rows' titles."""
    cells = tuple((Cell(text=row.title), *(cell for part in columns for cell in part.cells(row))) for row in rows)
    shown = [Column(heading=first, keys=(first,), numeric=False)]
    for number, name in enumerate((name for part in columns for name in part.headings), start=1):
        deviation = any(row[number].second is not None for row in cells)
        of = any(row[number].below for row in cells)
        below = (f"{name} ±",) if deviation else (f"{name}, of",) if of else ()
        shown.append(Column(heading=name, keys=(name, *below)))
    return Grid(key=key, heading=heading, frame=Frame(columns=tuple(shown), rows=cells), note=note)


def column(
    heading: str, value: Callable[[Row], Statistic], unit: Unit, strong: Callable[[Row], bool] = lambda row: False
) -> Columns:
    """A number that a function gives for each row, and where it is bold."""
    return Columns((heading,), lambda row: (mean_cell(value(row), unit, strong=strong(row)),))


def measured(
    heading: str,
    quantity: str,
    unit: Unit,
    *,
    label: Callable[[Row], str] = lambda row: row.label,
    strong: Callable[[Row], bool] = lambda row: False,
) -> Columns:
    """A quantity of a run's summary, of the row's method or another one."""
    return column(heading, lambda row: row.of.value(label(row), quantity), unit, strong)


def seconds(heading: str, unit: Unit) -> Columns:
    """Training time without its deviation, which says more of the machine than of the method."""
    return column(heading, lambda row: replace(row.of.value(row.label, "seconds_training"), deviation=math.nan), unit)


def published(heading: str, numbers: Table, quantity: str, unit: Unit) -> Columns:
    """What was published of the method, or a dash."""
    return column(heading, lambda row: published_value(row, numbers, quantity), unit)


def published_value(row: Row, numbers: Table, quantity: str) -> Statistic:
    """A published number; NaN if there is none."""
    return numbers.get((row.of.stands_for, row.label, quantity), statistic([]))


@final
@dataclass(frozen=True)
class Difference:
    """How far one method is above another, paired over seeds and tasks: in a table, and in the verdict."""

    heading: str
    pair: Callable[[Row], tuple[str, str] | None]
    """The labels of both; None where a row is not compared."""
    quantity: str = "peak_accuracies"

    def of(self, row: Row) -> PairedDifference | None:
        """The difference; None without a pair of runs."""
        labels = self.pair(row)
        if labels is None:
            return None
        found = paired_difference(row.of.runs_of(labels[0]), row.of.runs_of(labels[1]), self.quantity)
        return found if found.num_pairs else None

    @property
    def column(self) -> Columns:
        """The mean difference and p."""
        return Columns((self.heading, "p"), lambda row: difference_cells(self.of(row)))

    def words(self, rows: Iterable[Row]) -> list[str]:
        """``cifar100-10 HPS +0.8 points (p 0.03)`` for each row that is compared."""
        found = [(row, self.of(row)) for row in rows]
        return [f"{row.of.key} {row.name} {in_words(difference)}" for row, difference in found if difference]


def dot(row: str, series: str, value: Statistic, **more: Any) -> Dot:
    """A mark of a figure at a mean, with its deviation."""
    return Dot(row=row, series=series, mean=value.mean, deviation=value.deviation, **more)


def beside_published(name: str, rows: Sequence[Row], quantity: str, numbers: Table) -> Section:
    """Draw what the methods of one panel reach here, and what was published of them.

    Args:
        name: of the figure, after the panel's.
        rows: the methods.
        quantity: ``peak_accuracy`` or ``forgetting_ratio``.
        numbers: the published table.
    """
    of, accuracy, dots = rows[0].of, quantity == "peak_accuracy", []
    for row in rows:
        there = published_value(row, numbers, quantity)
        beside = there.mean if there.num_seeds else None
        dots.append(dot(row.title, "here", of.value(row.label, quantity), published=beside))
    drawing = draw_dots(
        f"{of.key}-{name}",
        dots,
        axis=ACCURACY_AXIS if accuracy else KEPT_AXIS,
        caption="Filled: here, with one standard deviation over seeds to each side. Not filled: published.",
        unit=percent if accuracy else ratio,
    )
    return f"{of.title}: {'peak accuracy' if accuracy else 'what is kept'}", drawing
