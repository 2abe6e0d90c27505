"""Layers that decide in groups, on a ResNet with 17 convolutions: the talk's table on group-based LASEM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lasem.report.numbers import fixed, percent, ratio, thousands
from paper.published import GROUPS as PUBLISHED
from paper.recipe import Findings, Panel, Recipe, panel, verdict
from paper.runs import PanelRuns
from paper.streams import Scale
from paper.table import PAIRED, SPREAD, Difference, Row, Section, beside_published, measured, published, seconds, table

GROUPS: Final = {
    "lasem-4g": (5, 4, 4, 4),
    "lasem-5g": (5, 4, 4, 2, 2),
    "lasem-6g": (5, 4, 2, 2, 2, 2),
    "lasem-7g": (5, 2, 2, 2, 2, 2, 2),
}
"""Convolutions in each group, input first; every border falls between residual blocks."""
COLUMNS: Final = (
    measured("Peak accuracy %", "peak_accuracy", percent),
    published("published %", PUBLISHED, "peak_accuracy", percent),
    measured("Final / peak", "forgetting_ratio", ratio),
    published("published", PUBLISHED, "forgetting_ratio", fixed(2)),
    seconds("Time, 1000 s", thousands),
    published("published time", PUBLISHED, "time", fixed(1)),
)
DIFFERENCE: Final = Difference(
    "Method − transfer-all", lambda row: (row.label, "all-hps") if row.label != "all-hps" else None
)


def panels(scale: Scale) -> tuple[Panel, ...]:
    """Transfer-all and LASEM with 4 to 7 groups on ten tasks, with 4 to 6 on forty."""
    found = []
    for stream in scale.streams("cifar100-10-resnet", "cifar100-40-resnet"):
        labels = [label for label in GROUPS if label != "lasem-7g" or stream.stands_for == "cifar100-10-resnet"]
        if scale.name == "smoke":
            labels = labels[:2]
        entries = [{"name": "lasem-hps", "label": label, "search": {"groups": list(GROUPS[label])}} for label in labels]
        found.append(panel(stream, ["all-hps"], entries))
    return tuple(found)


def draw(panels: Sequence[PanelRuns]) -> Findings:
    """A table for each stream with the published numbers, and a figure of the accuracies."""
    sections: list[Section] = []
    said = []
    for of in panels:
        titles = {label: f"LASEM {label.removeprefix('lasem-').upper()}" for label in of.labels}
        titles["all-hps"] = "Transfer-all"
        rows = [Row(titles[label], of, label, titles[label]) for label in of.labels]
        said += DIFFERENCE.words(rows)
        sections += [
            table(
                f"{of.key}-table",
                of.title,
                "Method",
                rows,
                (*COLUMNS, DIFFERENCE.column),
                f"nG: n groups of layers, each of which is transferred or not as a whole. {SPREAD}. Difference of peak "
                f"accuracies in points, {PAIRED}.",
            ),
            beside_published("accuracy", rows, "peak_accuracy", PUBLISHED),
        ]
    return Findings(verdict=verdict("Against transferring everything", said), sections=sections)


RECIPE: Final = Recipe(
    name="groups",
    title="Group-based LASEM on a ResNet",
    about="Does the search carry over to deep networks when layers decide in groups? Published: above transferring "
    "everything in accuracy, and far above it in what is kept, for 10 and for 40 tasks.",
    panels=panels,
    draw=draw,
)
