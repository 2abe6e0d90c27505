"""LASEM against training every configuration: the talk's table "Near-optimal", accuracy and time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lasem.metrics import Statistic, paired_difference, statistic
from lasem.report.frame import Cell, difference_cells, mean_cell
from lasem.report.numbers import fixed, in_words, percent
from paper import published
from paper.beside_published import beside_published
from paper.page import Findings, Grid, PanelRuns, Section, published_cell
from paper.recipe import SHARING_TITLES, Panel, Recipe, panel, verdict, with_sharing
from paper.streams import Bench

METHODS: Final = {"lasem": "LASEM", "exhaustive": "brute force", "all": "transfer all"}


def panels(bench: Bench) -> tuple[Panel, ...]:
    """LASEM, brute force and transfer-all for each mechanism, on both streams of the table."""
    streams = bench.streams("cifar100-10", "office-home")
    return tuple(panel(bench, stream, with_sharing(list(METHODS))) for stream in streams)


def draw(panels: Sequence[PanelRuns]) -> Findings:
    """The table with the published numbers beside, and a figure of the accuracies."""
    accuracies = published.fractions(published.BRUTE_FORCE_ACCURACY)
    sections: list[Section] = []
    said = []
    titles = [(f"{n}-{s}", f"{title}, {words}") for s, title in SHARING_TITLES.items() for n, words in METHODS.items()]
    for of in panels:
        rows = []
        for sharing, title in SHARING_TITLES.items():
            difference = paired_difference(of.runs_of(f"lasem-{sharing}"), of.runs_of(f"exhaustive-{sharing}"))
            if difference.num_pairs:
                said.append(f"{of.key} {title} {in_words(difference)}")
            for name, words in METHODS.items():
                label = f"{name}-{sharing}"
                rows.append(
                    (
                        Cell(text=f"{title}, {words}"),
                        mean_cell(of.value(label, "peak_accuracy"), percent),
                        published_cell(accuracies.get((of.stands_for, label)), percent),
                        mean_cell(relative_time(of, label, f"lasem-{sharing}"), fixed(2)),
                        published_cell(published.BRUTE_FORCE_TIME.get((of.stands_for, label)), fixed(2)),
                        *difference_cells(difference if name == "exhaustive" else None),
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
            beside_published(of, "accuracy", "peak_accuracy", of.stands_for, titles, accuracies),
        ]
    return Findings(verdict=verdict("LASEM against brute force", said), sections=tuple(sections))


def relative_time(of: PanelRuns, label: str, reference: str) -> Statistic:
    """Training time divided by another method's with the same seed."""
    own, other = of.summaries.get(label, {}), of.summaries.get(reference, {})
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
