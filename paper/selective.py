"""LASEM against other methods that share selectively: the talk's table on Office-Home."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from lasem.report.numbers import fixed, in_words, percent, ratio, thousands
from paper.published import SELECTIVE
from paper.recipe import NO_RUN, Findings, Panel, Recipe, panel
from paper.runs import PanelRuns
from paper.streams import Scale
from paper.table import PAIRED, SPREAD, Difference, Row, Section, beside_published, measured, published, seconds, table

METHODS: Final = {
    "den": "DEN",
    "apd": "APD",
    "prognn": "ProgNN",
    "darts-hps": "DARTS HPS",
    "darts-dfcnn": "DARTS DF-CNN",
    "lasem-hps": "LASEM HPS",
    "lasem-tf": "LASEM TF",
    "lasem-dfcnn": "LASEM DF-CNN",
}
COLUMNS: Final = (
    measured("Peak accuracy %", "peak_accuracy", percent),
    published("published %", SELECTIVE, "peak_accuracy", percent),
    measured("Final / peak", "forgetting_ratio", ratio),
    published("published", SELECTIVE, "forgetting_ratio", fixed(2)),
    seconds("Time, 1000 s", thousands),
    published("published time", SELECTIVE, "time", fixed(1)),
)


def panels(scale: Scale) -> tuple[Panel, ...]:
    """Every method of the table."""
    return tuple(panel(stream, list(METHODS)) for stream in scale.streams("office-home"))


def draw(panels: Sequence[PanelRuns]) -> Findings:
    """The table with the published numbers, and a figure of both quantities."""
    sections: list[Section] = []
    said = NO_RUN
    for of in panels:
        rows = [Row(title, of, label) for label, title in METHODS.items()]
        means = {row.label: of.value(row.label, "peak_accuracy").mean for row in rows if of.runs_of(row.label)}
        lasem = [label for label in means if label.startswith("lasem")]
        best = max(lasem, key=lambda label: means[label], default="lasem-hps")
        difference = Difference(f"{METHODS[best]} − method", partial(_pair, best))
        if means:
            top = max(means, key=lambda label: means[label])
            said = f"The highest peak accuracy is {METHODS[top]}'s, {percent(means[top])} %; of LASEM's mechanisms "
            said += f"{METHODS[best]} has {percent(means[best])} %" if lasem else "none is finished"
            to_top = difference.of(Row("", of, top))
            said += f", {in_words(to_top)}." if to_top else "."
        sections += [
            table(
                f"{of.key}-table",
                f"{of.title}: accuracy, forgetting and time",
                "Method",
                rows,
                (*COLUMNS, difference.column),
                f"{SPREAD}; time of optimisation steps alone. Difference of peak accuracies in points, {PAIRED}.",
            ),
            beside_published("peak-accuracy", rows, "peak_accuracy", SELECTIVE),
            beside_published("forgetting-ratio", rows, "forgetting_ratio", SELECTIVE),
        ]
    return Findings(verdict=said, sections=sections)


def _pair(best: str, row: Row) -> tuple[str, str] | None:
    return (best, row.label) if row.label != best else None


RECIPE: Final = Recipe(
    name="selective",
    title="Against other selective-sharing methods",
    about="How does LASEM compare with methods that decide otherwise what to share? Published, on Office-Home: as "
    "accurate as ProgNN and APD, far above DEN and DARTS, and it forgets little.",
    panels=panels,
    draw=draw,
)
