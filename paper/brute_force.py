"""LASEM against training every configuration: the talk's table "Near-optimal", accuracy and time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lasem.metrics import Statistic, statistic
from lasem.report.numbers import fixed, percent
from paper.published import BRUTE_FORCE
from paper.recipe import SHARING_TITLES, Findings, Panel, Recipe, panel, verdict, with_sharing
from paper.runs import PanelRuns
from paper.streams import Scale
from paper.table import PAIRED, SPREAD, Difference, Row, Section, beside_published, column, measured, published, table

METHODS: Final = {"lasem": "LASEM", "exhaustive": "brute force", "all": "transfer-all"}
COLUMNS: Final = (
    measured("Peak accuracy %", "peak_accuracy", percent),
    published("published %", BRUTE_FORCE, "peak_accuracy", percent),
    column("Time / LASEM's", lambda row: _relative_time(row), fixed(2)),
    published("published time", BRUTE_FORCE, "time", fixed(2)),
)
DIFFERENCE: Final = Difference(
    "LASEM − brute force",
    lambda row: (f"lasem-{row.sharing}", row.label) if row.label.startswith("exhaustive") else None,
)


def panels(scale: Scale) -> tuple[Panel, ...]:
    """LASEM, brute force and transfer-all for each mechanism, on both streams of the table."""
    return tuple(panel(of, with_sharing(list(METHODS))) for of in scale.streams("cifar100-10", "office-home"))


def draw(panels: Sequence[PanelRuns]) -> Findings:
    """The table with the published numbers, and a figure of the accuracies."""
    sections: list[Section] = []
    said = []
    for of in panels:
        rows = [
            Row(f"{title}, {words}", of, f"{method}-{sharing}", title)
            for sharing, title in SHARING_TITLES.items()
            for method, words in METHODS.items()
        ]
        said += DIFFERENCE.words(rows)
        sections += [
            table(
                f"{of.key}-table",
                f"{of.title}: accuracy and time",
                "Mechanism, search",
                rows,
                (*COLUMNS, DIFFERENCE.column),
                f"{SPREAD}. Time: optimisation steps alone, of one seed's run divided by LASEM's with the same seed; "
                f"of runs that shared a machine it is comparable only roughly. Difference in points, {PAIRED}.",
            ),
            beside_published("accuracy", rows, "peak_accuracy", BRUTE_FORCE),
        ]
    return Findings(verdict=verdict("LASEM against brute force", said), sections=sections)


def _relative_time(row: Row) -> Statistic:
    """Training time divided by LASEM's with the same seed."""
    own, other = (row.of.summaries.get(label, {}) for label in (row.label, f"lasem-{row.sharing}"))
    seconds = [(own[seed].seconds_training, other[seed].seconds_training) for seed in own if seed in other]
    return statistic([mine / theirs for mine, theirs in seconds if theirs > 0])


RECIPE: Final = Recipe(
    name="brute-force",
    title="Near-optimal: LASEM against brute-force search",
    about="Is what LASEM finds as good as the best of all 2^d configurations, each trained for itself? Published: "
    "within about a point, in a quarter to a tenth of the time.",
    panels=panels,
    draw=draw,
)
