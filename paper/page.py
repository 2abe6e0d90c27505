"""The page of a recipe, drawn from the files of its runs, and its tables and figures as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from lasem.report.experiment import flat_settings
from lasem.report.html import keep_together, render
from lasem.report.numbers import method_name
from lasem.report.significance import Cell
from lasem.report.text_files import to_csv, to_markdown, write_text
from paper.recipe import Findings, Recipe
from paper.runs import PanelRuns
from paper.table import Grid, Section


def write_page(
    directory: Path,
    recipe: Recipe,
    panels: Sequence[PanelRuns],
    findings: Findings,
    *,
    scale: str,
    environment: Mapping[str, str],
) -> Path:
    """Write the page, and its figures and tables as files, into a folder.

    Args:
        directory: the folder.
        recipe: what the page is about.
        panels: the runs.
        findings: what they show.
        scale: the name of the scale.
        environment: what the runs were made with; ``command`` is what a person typed.

    Returns:
        The path of the page.

    Raises:
        StorageError: if it cannot be written to.
    """
    files = directory / recipe.name
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
        name=recipe.title,
        recipe=recipe,
        scale=scale,
        verdict=keep_together(findings.verdict),
        progress=unfinished_sentence(panels),
        panels=panels,
        sections=[_section(number, section) for number, section in enumerate(findings.sections)],
        settings=[
            (of.title, method_name(m), flat_settings(plain)) for of in panels for m, plain in of.settings.items()
        ],
        method_name=method_name,
        config=None,
        environment={key: value for key, value in environment.items() if key != "command"},
        command=environment.get("command"),
    )
    return write_text(directory / f"{recipe.name}.html", text)


def rich_table(grid: Grid) -> Table:
    """Return a table of a page for ``rich.print``."""
    table = Table(title=Text(grid.heading))
    for number, column in enumerate(grid.columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number == 0)
    for row in grid.rows:
        table.add_row(*(Text(f"{c.text} {c.below}".strip(), style="bold" if c.strong else "") for c in row))
    return table


def unfinished_sentence(panels: Sequence[PanelRuns]) -> str:
    """Name the runs that are missing; empty if none is."""
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
        below = cell.below if cell.deviation is not None or not cell.below else f"({cell.below})"
        return f"{cell.text} {below}".strip()

    return [written(cell) for cell in row]


def _csv(grid: Grid) -> str:
    """Numbers unrounded, in the unit of their column; what is written below them in a column of its own."""
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
