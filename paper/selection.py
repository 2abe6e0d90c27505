"""What LASEM selects: the talk's figure "Probability of selection"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from lasem.metrics import Statistic, statistic, transfer_frequencies
from lasem.report.figures.heatmap import draw_transfer_map
from lasem.report.figures.lines import draw_probabilities
from lasem.report.figures.tree import draw_tree
from lasem.report.frame import mean_cell
from lasem.report.numbers import percent
from paper.architectures import lasem_rows, streams
from paper.figures import Point, draw_lines
from paper.recipe import Findings, Panel, Recipe, panel, verdict, with_sharing
from paper.runs import PanelRuns
from paper.streams import Scale
from paper.table import Columns, Row, Section, table

FIGURES: Final = {
    "layers that each task transfers": draw_transfer_map,
    "probability of each configuration while a task is learned": draw_probabilities,
    "the tree of configurations when the search was decided": draw_tree,
}
"""Of one seed; those of the others are in their runs' own reports."""


def panels(scale: Scale) -> tuple[Panel, ...]:
    """LASEM with each mechanism."""
    return tuple(panel(stream, with_sharing(["lasem"])) for stream in streams(scale))


def draw(panels: Sequence[PanelRuns]) -> Findings:
    """How often each layer is transferred, which layers each task transfers, and how the choice came about."""
    sections: list[Section] = []
    said = []
    for of in panels:
        rows = [replace(row, title=row.name) for row in lasem_rows([of])]
        layers = [(row, found) for row in rows if (found := _transferred(row))]
        points = [
            Point(series=row.title, x=str(layer), mean=value.mean, deviation=value.deviation)
            for row, found in layers
            for layer, value in enumerate(found, start=1)
        ]
        for row, found in layers:
            share = max(value.mean for value in found)
            layer = 1 + [value.mean for value in found].index(share)
            words = f"most often layer {layer} ({percent(share)} % of tasks)" if share else "nothing"
            said.append(f"{of.key} {row.title} {words}")
        drawing = draw_lines(
            f"{of.key}-layers",
            points,
            x_axis="layer, from the input to the output",
            y_axis="transferred, % of tasks",
            caption="Share of the tasks after the first that transfer the layer; bars reach one standard deviation "
            "over seeds to each side.",
        )
        depth = max((len(found) for _, found in layers), default=0)
        headings = tuple(f"Layer {layer}" for layer in range(1, depth + 1))
        sections += [
            (f"{of.title}: how often each layer is transferred", drawing),
            table(
                f"{of.key}-layers-table",
                f"{of.title}: layers transferred, % of tasks",
                "Mechanism",
                [row for row, _ in layers],
                [Columns(headings, lambda row: [mean_cell(value, percent) for value in _transferred(row)])],
                "Without the first task. Mean over seeds ± standard deviation.",
            ),
        ]
        for row in rows:
            for run in of.runs_of(row.label)[:1]:
                for heading, draw_figure in FIGURES.items():
                    figure = draw_figure(run)
                    named = replace(figure, name=f"{of.key}-{row.sharing}-{figure.name}") if figure else None
                    sections.append((f"{of.title}, {row.title}, seed {run.seed}: {heading}", named))
    return Findings(verdict=verdict("Transferred", said), sections=sections)


def _transferred(row: Row) -> list[Statistic]:
    """How often each layer is transferred, over seeds, without the first task, which has nothing to transfer."""
    chosen = [[task.configuration for task in run.tasks[1:]] for run in row.of.runs_of(row.label)]
    by_seed = [transfer_frequencies(configurations) for configurations in chosen if configurations]
    return [statistic(list(map(float, of_layer))) for of_layer in zip(*by_seed, strict=True)]


RECIPE: Final = Recipe(
    name="selection",
    title="Probability of selection",
    about="Which layers does LASEM transfer, and how does the probability of each configuration develop while a task "
    "is learned? Published: the choice differs between mechanisms and tasks.",
    panels=panels,
    draw=draw,
)
