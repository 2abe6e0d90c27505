"""LASEM within the range of the static configurations: the talk's figure "Peak per-task accuracy"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lasem.metrics import Statistic, statistic
from lasem.report.figures.bars import draw_dots
from lasem.report.frame import Cell
from lasem.report.numbers import DASH, method_name, percent
from paper.architectures import best_static, lasem_dot, lasem_rows, static_means, statics, streams
from paper.recipe import Findings, Panel, Recipe, panel, verdict, with_sharing
from paper.runs import PanelRuns
from paper.streams import Scale
from paper.table import ACCURACY_AXIS, PAIRED, Columns, Difference, Row, column, measured, table


def panels(scale: Scale) -> tuple[Panel, ...]:
    """The runs of ``architectures``, and LASEM with each mechanism."""
    return tuple(panel(of, ["none", *with_sharing([*statics(of.depth), "lasem"])]) for of in streams(scale))


def draw(panels: Sequence[PanelRuns]) -> Findings:
    """A figure of all streams and mechanisms, and a table with the paired difference to the best configuration."""
    rows, difference = lasem_rows(panels), Difference("Difference", lambda row: (row.label, _best(row)))
    drawing = draw_dots(
        "peak",
        [lasem_dot(row, "peak_accuracy") for row in rows],
        axis=ACCURACY_AXIS,
        caption="The mark is LASEM, with one standard deviation over seeds to each side; the grey bar reaches from the "
        "worst to the best static configuration.",
        unit=percent,
    )
    grid = table(
        "peak-table",
        "LASEM against the best static configuration",
        "Stream, mechanism",
        rows,
        (
            measured("LASEM %", "peak_accuracy", percent, strong=lambda row: True),
            column("Worst static %", _worst, percent),
            measured("Best static %", "peak_accuracy", percent, label=_best),
            Columns(("which",), lambda row: (Cell(text=method_name(best_static(row.of, row.sharing)) or DASH),)),
            difference.column,
        ),
        "The best configuration is chosen after the fact, by the same test accuracy that it is shown with, which "
        f"favours it. Difference in points, LASEM minus best, {PAIRED}.",
    )
    return Findings(
        verdict=verdict("LASEM against the best static configuration", difference.words(rows)),
        sections=(("LASEM and the range of the static configurations", drawing), grid),
    )


def _best(row: Row) -> str:
    return f"{best_static(row.of, row.sharing)}-{row.sharing}"


def _worst(row: Row) -> Statistic:
    means = static_means(row.of, row.sharing, "peak_accuracy").values()
    return statistic([min(means)] if means else [])


RECIPE: Final = Recipe(
    name="peak",
    title="Peak per-task accuracy",
    about="Does LASEM find a configuration as good as the best static one? Published: it performs toward the upper end "
    "of the range of the static configurations.",
    panels=panels,
    draw=draw,
)
