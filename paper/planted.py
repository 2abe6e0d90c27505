"""How often each search finds the layers that are truly shared, by the amount of data, where the truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

from lasem.errors import ConfigError, ShapeError
from lasem.experiments.parts import with_name
from lasem.metrics import Statistic, statistic
from lasem.report.numbers import percent
from paper.figures import Point, draw_lines
from paper.planted_stream import PlantedReader
from paper.recipe import NO_RUN, Findings, Panel, Recipe, panel
from paper.runs import PanelRuns
from paper.streams import Scale
from paper.table import Row, column, measured, table

METHODS: Final = {
    "lasem-hps": "LASEM",
    "exhaustive-hps": "brute force",
    "darts-hps": "DARTS",
    "random-hps": "random search",
    "prefix-hps": "prefix search",
}
AMOUNTS: Final = {"smoke": (4, 16), "small": (5, 20, 80, 320), "paper": (5, 20, 80, 320)}
"""Training images of each class."""
COLUMNS: Final = (
    column("All layers %", lambda row: _found(row, "TS"), percent),
    column("Truly shared %", lambda row: _found(row, "T"), percent),
    column("Truly own %", lambda row: _found(row, "S"), percent),
    measured("Peak accuracy %", "peak_accuracy", percent),
    measured("Transferred %", "fraction_layers_shared", percent),
)


def panels(scale: Scale) -> tuple[Panel, ...]:
    """Every search on each amount of data; the same tasks, with more images.

    Raises:
        ConfigError: if a person's own stream is to take the place of the planted one, whose truth is known, has
            another amount of data than the recipe goes through, or another depth than the network.
    """
    amounts = AMOUNTS[scale.name]
    if not RECIPE.serves(scale):
        raise ConfigError(
            f"Recipe planted asks what is found of a truth that only stream planted has; got stream {scale.own_stream}."
        )
    if "train_per_class" in with_name("stream", scale.given.get("stream")):
        raise ConfigError(
            f"Recipe planted goes through {', '.join(map(str, amounts))} training images a class. Leave "
            f"stream.train_per_class out."
        )
    found = tuple(_panel(scale, amount) for amount in amounts)
    config = found[0].methods[0].config
    reader = cast(PlantedReader, config.stream)
    depth = config.build_net((1, reader.image_size, reader.image_size)).depth
    if depth != reader.depth:
        raise ConfigError(
            f"Recipe planted compares what is found with stream.truth layer by layer: expected configurations of as "
            f"many layers as the network has, {depth}; got {','.join(reader.truth)}."
        )
    return found


def _panel(scale: Scale, amount: int) -> Panel:
    stream: dict[str, Any] = {"name": "planted", "train_per_class": amount}
    training: dict[str, Any] = {"learning_rate": 5e-4, "optimiser": "adam", "schedule": "cosine", "epochs": 30}
    if scale.name == "smoke":
        stream, training = {**stream, "num_tasks": 3, "test_per_class": 10}, {"epochs": 3}
    settings = {"stream": stream, "net": "digits", "training": training}
    return panel(scale.stream(f"planted-{amount}", f"Planted, {amount} images a class", 4, settings), list(METHODS))


def draw(panels: Sequence[PanelRuns]) -> Findings:
    """A figure of the share of layers found by the amount of data, and a table of it by kind of layer."""
    rows = [
        Row(f"{title}, {_amount(of)} images", of, label, title)
        for of in panels
        for label, title in METHODS.items()
        if of.runs_of(label)
    ]
    shares = [(row, _found(row, "TS")) for row in rows]
    drawing = draw_lines(
        "layers-found",
        [Point(series=row.name, x=_amount(row.of), mean=of.mean, deviation=of.deviation) for row, of in shares],
        x_axis="training images of each class",
        y_axis="layers found, %",
        caption="Share of the layers of all tasks after the first for which the search chose the truth: transfer where "
        "the teacher's layer is the first task's, its own where it is not. A coin finds half, the dotted line. Bars "
        "reach one standard deviation over seeds to each side.",
        reference=0.5,
    )
    grid = table(
        "layers-found-table",
        "Layers found, by kind",
        "Search, training images of each class",
        rows,
        COLUMNS,
        "Truly shared: of these layers, how many were transferred. Truly own: of these, how many were not. Mean over "
        "seeds ± standard deviation.",
    )
    return Findings(
        verdict=_verdict(_amount(panels[-1]), {row.name: of.mean for row, of in shares}),
        sections=(("Layers found", drawing), grid),
    )


def _verdict(amount: str, last: dict[str, float]) -> str:
    """Name the best search with most data."""
    if not last:
        return NO_RUN
    best = max(last, key=lambda title: last[title])
    said = f"With {amount} training images of each class {best} finds most of the truth: {percent(last[best])} % "
    said += "of the layers, where a coin finds 50 %."
    return said + (f" LASEM finds {percent(last['LASEM'])} %." if best != "LASEM" and "LASEM" in last else "")


def _amount(of: PanelRuns) -> str:
    return of.key.rpartition("-")[2]


def _found(row: Row, kinds: str) -> Statistic:
    """Over seeds, the share of layers found, of those that the run's settings have planted as one of these kinds."""
    planted = row.of.settings.get(row.label, {}).get("stream", {}).get("truth", ())
    shares = []
    for run in row.of.runs_of(row.label):
        later = [task for task in run.tasks if task.index > 0]
        truth = [str(planted[(task.index - 1) % len(planted)]) for task in later]
        shares.append(share_of_layers_found([task.configuration for task in later], truth, kinds))
    return statistic(shares)


def share_of_layers_found(chosen: Sequence[str], truth: Sequence[str], kinds: str = "TS") -> float:
    """Return the share of layers where the choice is the truth, in [0, 1]; a coin finds half of all. NaN for no layer.

    Args:
        chosen: the configuration of each task that has a truth, such as ``"STTS"``.
        truth: what its layers are: T truly shared with an earlier task, S its own.
        kinds: which layers count: ``T``, ``S`` or both.

    Raises:
        ShapeError: if tasks or layers do not match.
    """
    if [len(configuration) for configuration in chosen] != [len(configuration) for configuration in truth]:
        raise ShapeError(
            f"Expected one chosen layer for each layer of the truth; got {','.join(chosen)} for {','.join(truth)}. A "
            f"planted stream's truth has to be as deep as the network."
        )
    pairs = [(c, t) for c, t in zip("".join(chosen), "".join(truth), strict=True) if t in kinds]
    return sum(c == t for c, t in pairs) / len(pairs) if pairs else float("nan")


RECIPE: Final = Recipe(
    name="planted",
    title="Do searches find what is truly shared?",
    about="Teachers share some layers with the first task's and differ in the others; tasks are what the teachers "
    "answer. How often does each search choose just the layers that are truly shared? That is no target: the best of "
    "16 configurations by 1,000 test images agrees with the plan in 60 % of the layers (a coin: 50 %). Recipe choice "
    "measures how well searches choose. Not in the paper.",
    panels=panels,
    draw=draw,
    only_stream="planted",
)
