"""How much is forgotten, LASEM against the static configurations: the talk's figure "Catastrophic forgetting"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lasem.report.figures.bars import draw_dots
from lasem.report.frame import Cell
from lasem.report.numbers import DASH, ratio
from paper import peak
from paper.architectures import lasem_dot, lasem_rows, static_means
from paper.recipe import Findings, Recipe, verdict
from paper.runs import PanelRuns
from paper.table import KEPT_AXIS, PAIRED, Columns, Difference, Row, measured, table


def draw(panels: Sequence[PanelRuns]) -> Findings:
    """A figure of all streams and mechanisms, and a table of forgetting ratios."""
    rows = lasem_rows(panels)
    difference = Difference(
        "Final accuracy, LASEM − transfer-all", lambda row: (row.label, f"all-{row.sharing}"), "final_accuracies"
    )
    drawing = draw_dots(
        "forgetting",
        [lasem_dot(row, "forgetting_ratio") for row in rows],
        axis=KEPT_AXIS,
        caption="The mark is LASEM, with one standard deviation over seeds to each side; the grey bar reaches from the "
        "static configuration that forgets most to the one that forgets least.",
        unit=ratio,
    )
    grid = table(
        "forgetting-table",
        "What is kept",
        "Stream, mechanism",
        rows,
        (
            measured("LASEM", "forgetting_ratio", ratio, strong=lambda row: True),
            measured("Transfer-all", "forgetting_ratio", ratio, label=lambda row: f"all-{row.sharing}"),
            Columns(("Static configurations",), lambda row: (_range(row),)),
            difference.column,
        ),
        "Forgetting ratio: mean over tasks of final / peak accuracy, the last task included. Difference of final "
        f"accuracies in points, {PAIRED}.",
    )
    return Findings(
        verdict=verdict("Final accuracy of LASEM against transferring everything", difference.words(rows)),
        sections=(("Final accuracy divided by peak accuracy", drawing), grid),
    )


def _range(row: Row) -> Cell:
    known = static_means(row.of, row.sharing, "forgetting_ratio").values()
    return Cell(text=f"{ratio(min(known))} to {ratio(max(known))}" if known else DASH)


RECIPE: Final = Recipe(
    name="forgetting",
    title="Catastrophic forgetting",
    about="Does LASEM forget less than static configurations that transfer as much? Published: its forgetting ratio is "
    "above that of transferring everything.",
    panels=peak.panels,
    draw=draw,
)
