"""The page of a recipe, drawn from the files of its runs, and its tables and figures as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lasem.report.frame import keep_together, render, write_text
from lasem.report.numbers import method_name
from lasem.settings import flat
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
            write_text(files / f"{section.key}.csv", section.frame.csv())
            write_text(files / f"{section.key}.md", section.frame.markdown())
        elif section[1] is not None:
            section[1].write(files)
    text = render(
        "recipe.html.jinja",
        package="paper",
        name=f"{recipe.title} (smoke test, images made up from digits)" if scale == "smoke" else recipe.title,
        recipe=recipe,
        scale=scale,
        verdict=keep_together(findings.verdict),
        progress=unfinished_sentence(panels),
        panels=panels,
        sections=_first_figure_first([_section(number, section) for number, section in enumerate(findings.sections)]),
        settings=[(of.title, method_name(m), flat(plain)) for of in panels for m, plain in of.settings.items()],
        method_name=method_name,
        config=None,
        environment=environment,
    )
    return write_text(directory / f"{recipe.name}.html", text)


def unfinished_sentence(panels: Sequence[PanelRuns]) -> str:
    """Name the runs that are missing; empty if none is."""
    missing = [f"{panel.key}/{name}" for panel in panels for name in panel.missing]
    if not missing:
        return ""
    more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
    return f"Unfinished: {', '.join(missing[:8])}{more}. Means are over the finished seeds."


def _first_figure_first(sections: list[dict[str, Any]]) -> list[dict[str, Any]]:
    first = next((section for section in sections if section["drawing"] is not None), None)
    return sections if first is None else [first, *(section for section in sections if section is not first)]


def _section(number: int, section: Section) -> dict[str, Any]:
    if isinstance(section, Grid):
        return {"grid": section, "heading": section.heading, "key": section.key, "drawing": None}
    heading, drawing = section
    key = drawing.name if drawing else f"figure-{number}"
    return {"grid": None, "heading": heading, "key": key, "drawing": drawing}
