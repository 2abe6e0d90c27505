"""LASEM against training every configuration: the talk's table "Near-optimal", accuracy and time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lasem.experiments.recipes import published
from lasem.experiments.recipes.recipe import SHARING_TITLES, Panel, Recipe, panel, with_sharing
from lasem.experiments.recipes.streams import Bench
from lasem.metrics import Statistic, paired_difference, statistic
from lasem.report.figures.dots import Dot, draw_dots
from lasem.report.figures.drawing import Drawing
from lasem.report.numbers import percent
from lasem.report.recipe import Cell, Findings, Grid, PanelRuns, mean_cell, published_cell
from lasem.report.significance import in_words, p_value_cell, points_cell

METHODS: Final = {"lasem": "LASEM", "exhaustive": "brute force", "all": "transfer all"}


def panels(bench: Bench) -> tuple[Panel, ...]:
    """LASEM, brute force and transfer-all for each mechanism, on both streams of the table."""
    streams = bench.streams("cifar100-10", "office-home")
    return tuple(panel(bench, stream, with_sharing(list(METHODS))) for stream in streams)


def draw(panels: Sequence[PanelRuns]) -> Findings:
    """The table with the published numbers beside, and a figure of the accuracies."""
    accuracies = published.fractions(published.BRUTE_FORCE_ACCURACY)
    sections: list[Grid | tuple[str, Drawing | None]] = []
    said = []
    for of in panels:
        dots, rows = [], []
        for sharing, title in SHARING_TITLES.items():
            difference = paired_difference(of.runs_of(f"lasem-{sharing}"), of.runs_of(f"exhaustive-{sharing}"))
            if difference.num_pairs:
                said.append(f"{of.key} {title} {in_words(difference)}")
            for name, words in METHODS.items():
                label = f"{name}-{sharing}"
                value, there = of.value(label, "peak_accuracy"), accuracies.get((of.stands_for, label))
                dots.append(
                    Dot(
                        row=f"{title}, {words}",
                        series="here",
                        mean=value.mean,
                        deviation=value.deviation,
                        published=there[0] if there else None,
                    )
                )
                compared = name == "exhaustive"
                rows.append(
                    (
                        Cell(text=f"{title}, {words}"),
                        mean_cell(value, percent),
                        published_cell(there, percent),
                        mean_cell(relative_time(of, label, f"lasem-{sharing}"), _times),
                        published_cell(published.BRUTE_FORCE_TIME.get((of.stands_for, label)), _times),
                        points_cell(difference) if compared else Cell(text="–"),
                        p_value_cell(difference) if compared else Cell(text="–"),
                    )
                )
        sections += [
            Grid(
                key=f"{of.key}-table",
                heading=f"{of.title}: accuracy and time",
                columns=(
                    "Mechanism, search",
                    "Peak accuracy %",
                    "published %",
                    "Time / LASEM's",
                    "published time",
                    "LASEM − brute force",
                    "p",
                ),
                rows=tuple(rows),
                note="Mean over tasks and seeds ± standard deviation over seeds. Time: optimisation steps alone, of "
                "one seed's run divided by LASEM's with the same seed; of runs that shared a machine it is comparable "
                "only roughly. Difference in points, paired over seeds and tasks; p of a two-sided sign-flip test.",
            ),
            (
                f"{of.title}: peak accuracy",
                draw_dots(
                    f"{of.key}-accuracy",
                    dots,
                    axis="peak accuracy in %, mean over tasks",
                    caption="Filled: here, with one standard deviation over seeds to each side. Not filled: published.",
                    write=percent,
                    scale=100,
                ),
            ),
        ]
    verdict = f"LASEM against brute force: {'; '.join(said)}." if said else "No run is finished yet."
    return Findings(verdict=verdict, sections=tuple(sections))


def relative_time(of: PanelRuns, label: str, reference: str) -> Statistic:
    """Training time divided by another method's with the same seed."""
    own, other = of.summaries.get(label, {}), of.summaries.get(reference, {})
    seconds = [(own[seed].seconds_training, other[seed].seconds_training) for seed in own if seed in other]
    return statistic([mine / theirs for mine, theirs in seconds if theirs > 0])


def _times(value: float) -> str:
    return f"{value:.2f}" if value == value else "–"


RECIPE: Final = Recipe(
    name="brute-force",
    title="Near-optimal: LASEM against brute-force search",
    about="Is what LASEM finds as good as the best of all 2^d configurations, each trained for itself? Published: "
    "within about a point, in a quarter to a tenth of the time.",
    panels=panels,
    draw=draw,
)
