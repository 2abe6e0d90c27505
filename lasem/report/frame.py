"""One table as columns and rows of cells, which pages, terminals, CSV and Markdown show; and the files of a report."""

import csv
import io
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lasem.errors import StorageError, csv_text, printable
from lasem.files import write_file
from lasem.metrics import PairedDifference, Statistic
from lasem.report import numbers
from lasem.report.numbers import DASH, Unit, p_value, percent, signed

if TYPE_CHECKING:
    from rich.table import Table

_MADE_BY = b'name="generator" content="lasem"'


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a table."""

    text: str
    below: str = ""
    """Smaller, below it: a deviation, or what the number is of."""
    number: float | None = None
    """The number unrounded, to sort by and for CSV, where a dash is an empty cell; None: the text."""
    second: float | None = None
    """The number below, unrounded, for CSV; None: the text below."""
    strong: bool = False
    configurations: tuple[str, ...] = ()
    """What a page draws in place of the text: one for each seed."""
    links: tuple[tuple[str, str], ...] = ()
    """Texts and addresses that a page has in place of the text."""

    @property
    def line(self) -> str:
        """The whole cell in one line."""
        return f"{self.text} {self.below}" if self.below[:1] in ("", "±") else f"{self.text} ({self.below})"


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table."""

    heading: str
    keys: tuple[str, ...] = ()
    """Its name in CSV; with two of them, the second is of what is below."""
    numeric: bool = True
    console: bool = True
    """False: on pages and in files only, for a terminal is narrow."""
    fixed: bool = False
    """Whether a page offers no sorting by it."""


def columns_of(*headings: str, texts: Sequence[str], of_pages: Sequence[str] = ()) -> tuple[Column, ...]:
    """Return columns of numbers, but for those of ``texts``; a terminal does without those ``of_pages``."""
    return tuple(Column(heading=of, numeric=of not in texts, console=of not in of_pages) for of in headings)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One table."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    footer: tuple[Cell, ...] = ()

    @property
    def header(self) -> int:
        """The column that names the rows."""
        return next(n for n, column in enumerate(self.columns) if not column.numeric)

    def csv(self) -> str:
        """Numbers unrounded under the columns' keys."""
        rows = []
        for row in self.rows:
            cells = [(cell, column.keys) for cell, column in zip(row, self.columns, strict=True)]
            rows.append([value for cell, keys in cells for value in _values(cell)[: len(keys)]])
        return to_csv([key for column in self.columns for key in column.keys], rows)

    def markdown(self) -> str:
        """Columns that have keys. What would end a cell, or be markup, is written as text."""
        shown = [n for n, column in enumerate(self.columns) if column.keys]
        lines = [[self.columns[n].heading for n in shown], *([row[n].line.strip() for n in shown] for row in self.rows)]
        lines = [[re.sub(r"[\\`*<>\[\]|&]", r"\\\g<0>", printable(text)) for text in line] for line in lines]
        head, *body = [f"| {' | '.join(line)} |" for line in lines]
        return "\n".join([head, "|---" + "|---:" * (len(shown) - 1) + "|", *body]) + "\n"

    def console(self, title: str, caption: str = "") -> "Table":
        """The table for ``rich.print``."""
        from rich.table import Table
        from rich.text import Text

        def text(written: str, style: str = "") -> Text:
            return Text(printable(written.strip()), style)  # no markup: a class called "[red]" stays what it is

        table = Table(title=text(title), caption=text(caption), show_footer=bool(self.footer and self.rows))
        for n, column in enumerate(self.columns):
            if column.console:
                longest = max((len(row[n].text) for row in self.rows), default=0)
                table.add_column(
                    column.heading,
                    text(self.footer[n].line) if self.footer else "",
                    justify="right" if column.numeric else "left",
                    min_width=min(24, longest) if n == self.header else None,
                )
        for row in self.rows:
            cells = [cell for cell, column in zip(row, self.columns, strict=True) if column.console]
            table.add_row(*(text(cell.line, "bold" if cell.strong else "") for cell in cells))
        return table


def _values(cell: Cell) -> tuple[object, object]:
    number = None if cell.text == DASH else cell.text if cell.number is None else cell.number
    return number, cell.second if cell.second is not None else cell.below or None


def number_cell(value: float, unit: Unit, *, deviation: float = math.nan, strong: bool = False) -> Cell:
    """A number, and below it its deviation if there is one; for sorting and CSV in the unit."""
    known = math.isfinite(deviation)
    return Cell(
        text=unit(value),
        below=f"± {unit(deviation)}" if known else "",
        number=unit.scale * value if value == value else None,
        second=unit.scale * deviation if known else None,
        strong=strong,
    )


def name_cell(name: str, limit: int) -> Cell:
    """A name from a user's data."""
    return Cell(text=numbers.display_name(name, limit))


def mean_cell(value: Statistic, unit: Unit, *, strong: bool = False) -> Cell:
    """Mean, and below it the deviation over seeds."""
    return number_cell(value.mean, unit, deviation=value.deviation, strong=strong)


def difference_cells(difference: PairedDifference | None) -> tuple[Cell, Cell]:
    """The mean difference in points with the seeds in which it is above zero, and the p-value with the number of pairs.

    Dashes where there is no pair; None is for the row that the others are compared with.
    """
    if difference is None or not difference.num_pairs:
        return Cell(text=DASH), Cell(text=DASH)
    seeds = f"{difference.num_seeds_above} of {difference.num_seeds} seeds"
    return (
        Cell(text=signed(difference.mean), below=seeds, number=percent.scale * difference.mean),
        Cell(text=p_value(difference.p_value), below=f"{difference.num_pairs} pairs", number=difference.p_value),
    )


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """One line for each row below a heading; floats keep every bit, None becomes an empty cell, no text a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([csv_text(value) if isinstance(value, str) else value for value in row] for row in rows)
    return text.getvalue()


def write_text(path: Path, text: str) -> Path:
    """Replace a file in one step, but not durably, for it can be drawn again; StorageError if it cannot be written."""
    # names of folders may hold bytes that are no UTF-8; Python keeps them as surrogates, which cannot be written
    write_file(path, text.encode("utf-8", errors="replace"), durable=False)
    return path


def check_place(page: Path, model: str | Path) -> None:
    """Raise StorageError unless a page may be written: outside of a model's folder, where none but a page of ours is.

    The folder is written by ``lasem learn`` alone, which takes other files in it for a mistake.
    """
    if page.resolve().is_relative_to(Path(model).resolve()):
        raise StorageError(f"Expected a place outside of the model's own folder {model}; got {page}. Give another one.")
    if os.path.isdir(page):
        raise StorageError(f"Expected a file to write the page to; {page} is a folder. Name a file in it.")
    if os.path.lexists(page):
        with page.open("rb") if os.path.isfile(page) else io.BytesIO() as opened:
            ours = _MADE_BY in opened.read(1000)
        if not ours:
            raise StorageError(
                f"{page} is there already and is no page of lasem. Give another place, or remove that file."
            )


def render(template: str, *, environment: Mapping[str, str], package: str = "lasem.report", **values: Any) -> str:
    """Fill a template of ``package``, which may extend and import those here.

    Everything in ``values`` is text unless the template says that it is safe; ``environment`` is what the runs were
    made with, its ``command`` what a person typed.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    from lasem.report.figures import COLOURS

    def shown(value: Any) -> Any:
        if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
            return value
        return "".join(c if c in "\n\N{NO-BREAK SPACE}" else printable(c) for c in value)

    # autoescape and finalize: names of tasks and classes, settings and paths come from other people's files
    templates = Environment(
        loader=ChoiceLoader([PackageLoader(place, "") for place in (package, "lasem.report")]),
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals["numbers"] = numbers
    made_with = {key: value for key, value in environment.items() if key != "command"}
    values.setdefault("again", "Make it again")
    values |= {"environment": made_with, "command": environment.get("command"), "colours": COLOURS}
    return templates.get_template(template).render(values)


def keep_together(text: str) -> str:
    """No line breaks between a number and its unit, its deviation or its name."""
    return re.sub(r"(?<=[\d±]) (?=[\d±%kMGhs]|min)|(?<=\(p) ", "\N{NO-BREAK SPACE}", text)
