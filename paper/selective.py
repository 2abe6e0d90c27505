"""LASEM against other methods that share selectively: the talk's table on Office-Home."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lasem.metrics import paired_difference
from lasem.report.frame import Cell, difference_cells, mean_cell, number_cell
from lasem.report.numbers import fixed, in_words, percent, ratio, thousands
from paper import published
from paper.beside_published import beside_published
from paper.page import Findings, Grid, PanelRuns, Section, published_cell
from paper.recipe import NO_RUN, Panel, Recipe, panel
from paper.streams import Bench

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


def panels(bench: Bench) -> tuple[Panel, ...]:
    """Every method of the table."""
    return tuple(panel(bench, stream, list(METHODS)) for stream in bench.streams("office-home"))


def draw(panels: Sequence[PanelRuns]) -> Findings:
    """The table with the published numbers beside, and a figure of both quantities."""
    sections: list[Section] = []
    said = ""
    for of in panels:
        best = _best_lasem(of)
        means = {label: of.value(label, "peak_accuracy").mean for label in METHODS}
        known = {label: mean for label, mean in means.items() if mean == mean}
        if known:
            top = max(known, key=lambda label: known[label])
            said = f"The highest peak accuracy is {METHODS[top]}'s, {percent(known[top])} %; of LASEM's mechanisms "
            said += f"{METHODS[best]} has {percent(known[best])} %" if best in known else "none is finished"
            difference = paired_difference(of.runs_of(best), of.runs_of(top))
            said += f", {in_words(difference)}." if best != top and difference.num_pairs else "."
        sections.append(_grid(of, best))
        for quantity, table in (
            ("peak_accuracy", published.fractions(published.SELECTIVE_ACCURACY)),
            ("forgetting_ratio", published.SELECTIVE_FORGETTING),
        ):
            name, methods = quantity.replace("_", "-"), list(METHODS.items())
            sections.append(beside_published(of, name, quantity, of.stands_for, methods, table))
    return Findings(verdict=said or NO_RUN, sections=tuple(sections))


def _best_lasem(of: PanelRuns) -> str:
    labels = [label for label in METHODS if label.startswith("lasem") and of.runs_of(label)]
    return max(labels, key=lambda label: of.value(label, "peak_accuracy").mean) if labels else "lasem-hps"


def _grid(of: PanelRuns, best: str) -> Grid:
    accuracies, rows = published.fractions(published.SELECTIVE_ACCURACY), []
    for label, title in METHODS.items():
        difference = paired_difference(of.runs_of(best), of.runs_of(label))
        key = (of.stands_for, label)
        rows.append(
            (
                Cell(text=title),
                mean_cell(of.value(label, "peak_accuracy"), percent),
                published_cell(accuracies.get(key), percent),
                mean_cell(of.value(label, "forgetting_ratio"), ratio),
                published_cell(published.SELECTIVE_FORGETTING.get(key), fixed(2)),
                number_cell(of.value(label, "seconds_training").mean, thousands),
                published_cell(published.SELECTIVE_KILOSECONDS.get(key), fixed(1)),
                *difference_cells(difference if label != best else None),
            )
        )
    return Grid(
        key=f"{of.key}-table",
        heading=f"{of.title}: accuracy, forgetting and time",
        columns=(
            "Method",
            "Peak accuracy %",
            "published %",
            "Final / peak",
            "published",
            "Time, 1000 s",
            "published time",
            f"{METHODS[best]} − method",
            "p",
        ),
        rows=tuple(rows),
        note="Mean over tasks and seeds ± standard deviation over seeds; time of optimisation steps alone. Difference "
        "of peak accuracies in points, paired over seeds and tasks; p of a two-sided sign-flip test.",
    )


RECIPE: Final = Recipe(
    name="selective",
    title="Against other selective-sharing methods",
    about="How does LASEM compare with methods that decide otherwise what to share? Published, on Office-Home: as "
    "accurate as ProgNN and APD, far above DEN and DARTS, and it forgets little.",
    panels=panels,
    draw=draw,
)
