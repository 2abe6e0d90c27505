"""How often each search finds the layers that are truly shared, by the amount of data, where the truth is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, cast

from lasem.data import PlantedReader
from lasem.errors import ConfigError
from lasem.experiments.methods import with_name
from lasem.metrics import (
    Run,
    share_of_layers_found,
    share_of_own_layers_found,
    share_of_shared_layers_found,
    statistic,
)
from lasem.report.figures.lines import Point, draw_lines
from lasem.report.frame import Cell, mean_cell
from lasem.report.numbers import percent
from paper.page import Findings, Grid, PanelRuns
from paper.recipe import NO_RUN, Panel, Recipe, panel
from paper.streams import Bench, StreamPart

METHODS: Final = {
    "lasem-hps": "LASEM",
    "exhaustive-hps": "brute force",
    "darts-hps": "DARTS",
    "random-hps": "random search",
    "prefix-hps": "prefix search",
}
AMOUNTS: Final = {"smoke": (4, 16), "small": (5, 20, 80, 320), "paper": (5, 20, 80, 320)}
"""Training images of each class."""

_Share = Callable[[Sequence[str], Sequence[str]], float]


def panels(bench: Bench) -> tuple[Panel, ...]:
    """Every search on each amount of data; the same tasks, with more images.

    Raises:
        ConfigError: if a person's own stream is to take the place of the planted one, whose truth is known, has
            another amount of data than the recipe goes through, or another depth than the network.
    """
    if not RECIPE.serves(bench):
        raise ConfigError(
            f"Recipe planted asks what is found of a truth that only stream planted has; got stream {bench.own_stream}."
        )
    if "train_per_class" in with_name("stream", bench.given.get("stream")):
        raise ConfigError(
            f"Recipe planted goes through {', '.join(map(str, AMOUNTS[bench.scale]))} training images a class. Leave "
            f"stream.train_per_class out."
        )
    found = tuple(panel(bench, stream, list(METHODS)) for stream in _streams(bench))
    config = found[0].methods[0].config
    reader = cast(PlantedReader, config.stream)
    depth = config.build_net((1, reader.image_size, reader.image_size)).depth
    if depth != reader.depth:
        raise ConfigError(
            f"Recipe planted compares what is found with stream.truth layer by layer: expected configurations of as "
            f"many layers as the network has, {depth}; got {','.join(reader.truth)}."
        )
    return found


def _streams(bench: Bench) -> list[StreamPart]:
    found = []
    for amount in AMOUNTS[bench.scale]:
        entry = {
            "stream": {"name": "planted", "train_per_class": amount},
            "net": "digits",
            "training": {"learning_rate": 5e-4, "optimiser": "adam", "schedule": "cosine", "epochs": 30},
        }
        if bench.scale == "smoke":
            entry["stream"] = {**entry["stream"], "num_tasks": 3, "test_per_class": 10}  # type: ignore[dict-item]
            entry["training"] = {"epochs": 3}
        title = f"Planted, {amount} images a class"
        found.append(bench.part(f"planted-{amount}", title, 4, entry))
    return found


def draw(panels: Sequence[PanelRuns]) -> Findings:
    """A figure of the share of layers found by the amount of data, and a table that parts it by kind of layer."""
    points, rows, last = [], [], {}
    for of in panels:
        amount = of.key.rpartition("-")[2]
        for label, title in METHODS.items():
            runs, truth = of.runs_of(label), _truth(of, label)
            if not runs:
                continue
            shares = [
                statistic([_share(run, truth, share) for run in runs])
                for share in (share_of_layers_found, share_of_shared_layers_found, share_of_own_layers_found)
            ]
            points.append(Point(series=title, x=amount, mean=shares[0].mean, deviation=shares[0].deviation))
            last[title] = shares[0].mean
            rows.append(
                (
                    Cell(text=f"{title}, {amount} images"),
                    *(mean_cell(value, percent) for value in shares),
                    mean_cell(of.value(label, "peak_accuracy"), percent),
                    mean_cell(of.value(label, "fraction_layers_shared"), percent),
                )
            )
    sections = (
        (
            "Layers found",
            draw_lines(
                "layers-found",
                points,
                x_axis="training images of each class",
                y_axis="layers found, %",
                caption="Share of the layers of all tasks after the first for which the search chose the truth: "
                "transfer where the teacher's layer is the first task's, its own where it is not. A coin finds half, "
                "the dotted line. Bars reach one standard deviation over seeds to each side.",
                reference=0.5,
            ),
        ),
        Grid(
            key="layers-found-table",
            heading="Layers found, by kind",
            columns=(
                "Search, training images of each class",
                "All layers %",
                "Truly shared %",
                "Truly own %",
                "Peak accuracy %",
                "Transferred %",
            ),
            rows=tuple(rows),
            note="Truly shared: of these layers, how many were transferred. Truly own: of these, how many were not. "
            "Mean over seeds ± standard deviation.",
        ),
    )
    amount = panels[-1].key.rpartition("-")[2]
    best = max(last, key=lambda title: last[title]) if last else ""
    verdict = NO_RUN
    if best:
        verdict = (
            f"With {amount} training images of each class {best} finds most of the truth: {percent(last[best])} % "
        )
        verdict += "of the layers, where a coin finds 50 %."
        if best != "LASEM" and "LASEM" in last:
            verdict += f" LASEM finds {percent(last['LASEM'])} %."
    return Findings(verdict=verdict, sections=sections)


def _truth(of: PanelRuns, label: str) -> list[str]:
    """The truth of the tasks after the first, as the run's settings have it."""
    return [str(truth) for truth in of.settings.get(label, {}).get("stream", {}).get("truth", ())]


def _share(run: Run, truth: Sequence[str], share: _Share) -> float:
    chosen = [task.configuration for task in run.tasks if task.index > 0]
    return share(chosen, [truth[(task.index - 1) % len(truth)] for task in run.tasks if task.index > 0])


RECIPE: Final = Recipe(
    name="planted",
    title="Do searches find what is truly shared?",
    about="Teachers share some layers with the first task's and differ in the others; tasks are what the teachers "
    "answer. How often does each search choose just the layers that are truly shared? Not in the paper.",
    panels=panels,
    draw=draw,
    only_stream="planted",
)
