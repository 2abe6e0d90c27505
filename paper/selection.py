"""What LASEM selects: the talk's figure "Probability of selection"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from lasem.metrics import statistic, transfer_frequencies
from lasem.report.figures.heatmap import draw_transfer_map
from lasem.report.figures.lines import Point, draw_lines, draw_probabilities
from lasem.report.figures.tree import draw_tree
from lasem.report.frame import Cell, mean_cell
from lasem.report.numbers import percent
from paper import architectures
from paper.page import Findings, Grid, PanelRuns, Section
from paper.recipe import SHARING_TITLES, Panel, Recipe, panel, verdict, with_sharing
from paper.streams import Bench


def panels(bench: Bench) -> tuple[Panel, ...]:
    """LASEM with each mechanism."""
    streams = bench.streams(*(architectures.STREAMS[:1] if bench.scale == "smoke" else architectures.STREAMS))
    return tuple(panel(bench, stream, with_sharing(["lasem"])) for stream in streams)


def draw(panels: Sequence[PanelRuns]) -> Findings:
    """How often each layer is transferred, which layers each task transfers, and how the choice came about."""
    sections: list[Section] = []
    said = []
    for of in panels:
        points, rows = [], []
        for sharing, title in SHARING_TITLES.items():
            # the first task has nothing to transfer
            chosen = [[task.configuration for task in run.tasks[1:]] for run in of.runs_of(f"lasem-{sharing}")]
            by_seed = [transfer_frequencies(configurations) for configurations in chosen if configurations]
            if not by_seed:
                continue
            layers = [statistic([float(of_seed[layer]) for of_seed in by_seed]) for layer in range(len(by_seed[0]))]
            points += [
                Point(series=title, x=str(layer), mean=value.mean, deviation=value.deviation)
                for layer, value in enumerate(layers, start=1)
            ]
            rows.append((Cell(text=title), *(mean_cell(value, percent) for value in layers)))
            most = max(range(len(layers)), key=lambda layer: layers[layer].mean)
            share = layers[most].mean
            words = f"most often layer {most + 1} ({percent(share)} % of tasks)" if share else "nothing"
            said.append(f"{of.key} {title} {words}")
        width = max((len(row) for row in rows), default=1)
        sections += [
            (
                f"{of.title}: how often each layer is transferred",
                draw_lines(
                    f"{of.key}-layers",
                    points,
                    x_axis="layer, from the input to the output",
                    y_axis="transferred, % of tasks",
                    caption="Share of the tasks after the first that transfer the layer; bars reach one standard "
                    "deviation over seeds to each side.",
                ),
            ),
            Grid(
                key=f"{of.key}-layers-table",
                heading=f"{of.title}: layers transferred, % of tasks",
                columns=("Mechanism", *(f"Layer {layer}" for layer in range(1, width))),
                rows=tuple(rows),
                note="Without the first task. Mean over seeds ± standard deviation.",
            ),
        ]
        for sharing, title in SHARING_TITLES.items():
            runs = of.runs_of(f"lasem-{sharing}")
            if runs:  # one seed: the others are in their runs' own reports
                for heading, drawing in (
                    ("layers that each task transfers", draw_transfer_map(runs[0])),
                    ("probability of each configuration while a task is learned", draw_probabilities(runs[0])),
                    ("the tree of configurations when the search was decided", draw_tree(runs[0])),
                ):
                    named = replace(drawing, name=f"{of.key}-{sharing}-{drawing.name}") if drawing else None
                    sections.append((f"{of.title}, {title}, seed {runs[0].seed}: {heading}", named))
    return Findings(verdict=verdict("Transferred", said), sections=tuple(sections))


RECIPE: Final = Recipe(
    name="selection",
    title="Probability of selection",
    about="Which layers does LASEM transfer, and how does the probability of each configuration develop while a task "
    "is learned? Published: the choice differs between mechanisms and tasks.",
    panels=panels,
    draw=draw,
)
