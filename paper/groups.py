"""Layers that decide in groups, on a ResNet with 17 convolutions: the talk's table on group-based LASEM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lasem.metrics import paired_difference
from lasem.report.frame import Cell, difference_cells, mean_cell, number_cell
from lasem.report.numbers import fixed, in_words, percent, ratio, thousands
from paper import published
from paper.beside_published import beside_published
from paper.page import Findings, Grid, PanelRuns, Section, published_cell
from paper.recipe import Panel, Recipe, panel, verdict
from paper.streams import Bench

GROUPS: Final = {
    "lasem-4g": (5, 4, 4, 4),
    "lasem-5g": (5, 4, 4, 2, 2),
    "lasem-6g": (5, 4, 2, 2, 2, 2),
    "lasem-7g": (5, 2, 2, 2, 2, 2, 2),
}
"""Convolutions in each group, input first; every border falls between residual blocks."""


def panels(bench: Bench) -> tuple[Panel, ...]:
    """Transfer-all and LASEM with 4 to 7 groups on ten tasks, with 4 to 6 on forty."""
    found = []
    for stream in bench.streams("cifar100-10-resnet", "cifar100-40-resnet"):
        labels = [label for label in GROUPS if label != "lasem-7g" or stream.stands_for == "cifar100-10-resnet"]
        if bench.scale == "smoke":
            labels = labels[:2]
        entries = [{"name": "lasem-hps", "label": label, "search": {"groups": list(GROUPS[label])}} for label in labels]
        found.append(panel(bench, stream, ["all-hps"], entries))
    return tuple(found)


def draw(panels: Sequence[PanelRuns]) -> Findings:
    """A table for each stream with the published numbers beside, and a figure of the accuracies."""
    accuracies = published.fractions(published.GROUPS_ACCURACY)
    sections: list[Section] = []
    said = []
    for of in panels:
        stream, rows = of.stands_for.removesuffix("-resnet"), []
        for label in of.labels:
            title = _title(label)
            difference = paired_difference(of.runs_of(label), of.runs_of("all-hps"))
            compared = label != "all-hps"
            if compared and difference.num_pairs:
                said.append(f"{of.key} {title} {in_words(difference)}")
            rows.append(
                (
                    Cell(text=title),
                    mean_cell(of.value(label, "peak_accuracy"), percent),
                    published_cell(accuracies.get((stream, label)), percent),
                    mean_cell(of.value(label, "forgetting_ratio"), ratio),
                    published_cell(published.GROUPS_FORGETTING.get((stream, label)), ratio),
                    number_cell(of.value(label, "seconds_training").mean, thousands),
                    published_cell(published.GROUPS_KILOSECONDS.get((stream, label)), fixed(1)),
                    *difference_cells(difference if compared else None),
                )
            )
        sections += [
            Grid(
                key=f"{of.key}-table",
                heading=of.title,
                columns=(
                    "Method",
                    "Peak accuracy %",
                    "published %",
                    "Final / peak",
                    "published",
                    "Time, 1000 s",
                    "published time",
                    "Method − transfer all",
                    "p",
                ),
                rows=tuple(rows),
                note="nG: n groups of layers, each of which is transferred or not as a whole. Mean over tasks and "
                "seeds ± standard deviation over seeds. Difference of peak accuracies in points, paired over seeds and "
                "tasks; p of a two-sided sign-flip test.",
            ),
            beside_published(of, "accuracy", "peak_accuracy", stream, [(x, _title(x)) for x in of.labels], accuracies),
        ]
    return Findings(verdict=verdict("Against transferring everything", said), sections=tuple(sections))


def _title(label: str) -> str:
    return "Transfer all" if label == "all-hps" else f"LASEM {label.removeprefix('lasem-').upper()}"


RECIPE: Final = Recipe(
    name="groups",
    title="Group-based LASEM on a ResNet",
    about="Does the search carry over to deep networks when layers decide in groups? Published: above transferring "
    "everything in accuracy, and far above it in what is kept, for 10 and for 40 tasks.",
    panels=panels,
    draw=draw,
)
