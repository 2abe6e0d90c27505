"""What each part of LASEM's search is worth: one setting changed at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from lasem.report.figures.bars import draw_dots
from lasem.report.numbers import in_words, method_name, percent, ratio
from paper.recipe import NO_RUN, Findings, Panel, Recipe, panel
from paper.runs import PanelRuns
from paper.streams import Scale
from paper.table import LINES, SPREAD, Difference, Row, Section, dot, measured, table

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
    "first-task-search": ("first task: searched", {"first_task": "search"}),
    "first-task-all": ("first task: everything shared", {"first_task": "all"}),
    "first-task-none": ("first task: nothing shared", {"first_task": "none"}),
}
"""Label -> title and settings of the search; one that equals the reference's settings is left out."""

FIXED: Final = {f"fixed-{name}": name for name in ("all", "none", "top-2", "bottom-2")}
"""Label -> the configuration that the fixed-probability ablation gives .9, as the authors' code does."""

TITLES: Final = {
    REFERENCE: "LASEM HPS as it is",
    **{label: title for label, (title, _) in CHANGES.items()},
    **{label: f"fixed probability: .9 on {method_name(name)}" for label, name in FIXED.items()},
}
DIFFERENCE: Final = Difference(
    "Change − LASEM, peak", lambda row: (row.label, REFERENCE) if row.label != REFERENCE else None
)


def panels(scale: Scale) -> tuple[Panel, ...]:
    """LASEM HPS, and the same with one change."""
    found = []
    for stream in scale.streams("cifar100-10"):
        search = panel(stream, [REFERENCE]).methods[0].config.to_plain()["search"]
        entries: list[dict[str, Any]] = [
            {"name": REFERENCE, "label": label, "search": dict(settings)}
            for label, (_, settings) in CHANGES.items()
            if any(search[name] != value for name, value in settings.items())
        ]
        entries += [
            {"name": "fixed-probability-hps", "label": label, "search": {"configuration": name}}
            for label, name in FIXED.items()
        ]
        found.append(panel(stream, [REFERENCE], entries))
    return tuple(found)


def draw(panels: Sequence[PanelRuns]) -> Findings:
    """A figure and a table of all changes, each paired with LASEM as it is."""
    sections: list[Section] = []
    said = []
    for of in panels:
        rows = [Row(TITLES[label], of, label) for label in of.labels if label in TITLES]
        compared = [(row.title, DIFFERENCE.of(row)) for row in rows]
        said += [f"{title}: {in_words(found)}" for title, found in compared if found and found.p_value < 0.05]
        drawing = draw_dots(
            f"{of.key}-ablations",
            [dot(row.title, end, of.value(row.label, f"{end}_accuracy")) for row in rows for end in ("peak", "final")],
            axis="accuracy in %, mean over tasks",
            caption=LINES,
            unit=percent,
        )
        sections += [
            (f"{of.title}: accuracy", drawing),
            table(
                f"{of.key}-table",
                f"{of.title}: one change at a time",
                "Change",
                rows,
                (
                    measured("Peak accuracy %", "peak_accuracy", percent, strong=lambda row: row.label == REFERENCE),
                    measured("Final %", "final_accuracy", percent, strong=lambda row: row.label == REFERENCE),
                    measured("Final / peak", "forgetting_ratio", ratio),
                    measured("Layers transferred %", "fraction_layers_shared", percent),
                    DIFFERENCE.column,
                ),
                f"{SPREAD}. Difference in points, paired over seeds and tasks; p of a two-sided sign-flip test, not "
                "corrected for the number of changes. Published: the product of likelihoods and the count prior, alike "
                "for all configurations at first; in the authors' code: their arithmetic mean and the running mean of "
                "posteriors.",
            ),
        ]
    verdict = f"Changes whose peak accuracy differs at p < 0.05: {'; '.join(said) or 'none'}."
    return Findings(verdict=verdict if any(of.runs_of(REFERENCE) for of in panels) else NO_RUN, sections=sections)


RECIPE: Final = Recipe(
    name="ablations",
    title="Ablations of the search",
    about="What is each part of the search worth: likelihood, prior, the probabilities being learned at all, "
    "commitment, and what happens to the first task?",
    panels=panels,
    draw=draw,
)
