"""What each part of LASEM's search is worth: one setting changed at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from lasem.metrics import paired_difference
from lasem.report.figures.dots import Dot, draw_dots
from lasem.report.frame import Cell, difference_cells, mean_cell
from lasem.report.numbers import in_words, percent, ratio
from paper.page import Findings, Grid, PanelRuns, Section
from paper.recipe import NO_RUN, Panel, Recipe, panel
from paper.streams import Bench

REFERENCE: Final = "lasem-hps"

_NEVER: Final = {"commit_probability": 2.0, "commit_share": 1.0}

CHANGES: Final[dict[str, tuple[str, Mapping[str, Any]]]] = {
    "likelihood-product": ("likelihood: product", {"likelihood": "product"}),
    "likelihood-geometric": ("likelihood: geometric mean", {"likelihood": "geometric"}),
    "likelihood-mean": ("likelihood: arithmetic mean", {"likelihood": "mean"}),
    "prior-count": ("prior: counts", {"prior_form": "count"}),
    "prior-average": ("prior: running mean", {"prior_form": "average"}),
    "prior-even": ("prior: begins alike for all", {"prior_start": [0.5, 0.5]}),
    "commit-never": ("commitment: never", _NEVER),
    "commit-quarter": ("commitment: after a quarter", {"commit_probability": 0.95, "commit_share": 0.25}),
    "pruning": ("pruning, and no commitment", {**_NEVER, "prune": 0.02}),
    "first-task-search": ("first task: searched", {"first_task": "search"}),
    "first-task-all": ("first task: everything shared", {"first_task": "all"}),
    "first-task-none": ("first task: nothing shared", {"first_task": "none"}),
}
"""Label -> what it is, and its settings of the search; one that equals the reference's settings is left out."""

FIXED: Final = ("all", "none", "top-2", "bottom-2")
"""Configurations that the fixed-probability ablation gives .9, as the authors' code does."""


def panels(bench: Bench) -> tuple[Panel, ...]:
    """LASEM HPS, and the same with one change."""
    found = []
    for stream in bench.streams("cifar100-10"):
        plain = panel(bench, stream, [REFERENCE])
        search = plain.methods[0].config.to_plain()["search"]
        entries: list[dict[str, Any]] = [
            {"name": REFERENCE, "label": label, "search": dict(settings)}
            for label, (_, settings) in CHANGES.items()
            if any(search[name] != value for name, value in settings.items())
        ]
        entries += [
            {"name": "fixed-probability-hps", "label": f"fixed-{name}", "search": {"configuration": name}}
            for name in FIXED
        ]
        found.append(panel(bench, stream, [REFERENCE], entries))
    return tuple(found)


def draw(panels: Sequence[PanelRuns]) -> Findings:
    """A figure and a table of all changes, each paired with LASEM as it is."""
    sections: list[Section] = []
    said = []
    for of in panels:
        dots, rows = [], []
        for label in (label for label in of.labels if label == REFERENCE or label in CHANGES or label[6:] in FIXED):
            title = _title(label)
            value = of.value(label, "peak_accuracy")
            final = of.value(label, "final_accuracy")
            dots += [
                Dot(row=title, series="peak", mean=value.mean, deviation=value.deviation),
                Dot(row=title, series="final", mean=final.mean, deviation=final.deviation),
            ]
            difference = paired_difference(of.runs_of(label), of.runs_of(REFERENCE))
            compared = label != REFERENCE
            if compared and difference.p_value < 0.05:
                said.append(f"{title}: {in_words(difference)}")
            rows.append(
                (
                    Cell(text=title),
                    mean_cell(value, percent, strong=not compared),
                    mean_cell(final, percent, strong=not compared),
                    mean_cell(of.value(label, "forgetting_ratio"), ratio),
                    mean_cell(of.value(label, "fraction_layers_shared"), percent),
                    *difference_cells(difference if compared else None),
                )
            )
        sections += [
            (
                f"{of.title}: accuracy",
                draw_dots(
                    f"{of.key}-ablations",
                    dots,
                    axis="accuracy in %, mean over tasks",
                    caption="Lines reach one standard deviation over seeds to each side.",
                    unit=percent,
                ),
            ),
            Grid(
                key=f"{of.key}-table",
                heading=f"{of.title}: one change at a time",
                columns=(
                    "Change",
                    "Peak accuracy %",
                    "Final %",
                    "Final / peak",
                    "Layers transferred %",
                    "Change − LASEM, peak",
                    "p",
                ),
                rows=tuple(rows),
                note="Mean over tasks and seeds ± standard deviation over seeds. Difference in points, paired over "
                "seeds and tasks; p of a two-sided sign-flip test, not corrected for the number of changes. Published: "
                "the product of likelihoods and the count prior, alike for all configurations at first; in the "
                "authors' code: their arithmetic mean and the running mean of posteriors. Pruning leaves out "
                "configurations that hold 2 % of the prior together.",
            ),
        ]
    verdict = (
        f"Changes whose peak accuracy differs at p < 0.05: {'; '.join(said) or 'none'}."
        if any(of.runs_of(REFERENCE) for of in panels)
        else NO_RUN
    )
    return Findings(verdict=verdict, sections=tuple(sections))


def _title(label: str) -> str:
    if label == REFERENCE:
        return "LASEM HPS as it is"
    if label in CHANGES:
        return CHANGES[label][0]
    return f"fixed probability: .9 on {label.removeprefix('fixed-')}"


RECIPE: Final = Recipe(
    name="ablations",
    title="Ablations of the search",
    about="What is each part of the search worth: likelihood, prior, the probabilities being learned at all, "
    "commitment, pruning, and what happens to the first task?",
    panels=panels,
    draw=draw,
)
