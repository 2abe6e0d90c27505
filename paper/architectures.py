"""Every static configuration of every mechanism: the talk's figure "Evaluation of different architectures"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lasem.report.figures.dots import Dot, draw_dots
from lasem.report.frame import Cell, mean_cell
from lasem.report.numbers import percent, plus_minus
from paper.page import Findings, Grid, PanelRuns, Section
from paper.recipe import SHARING_TITLES, Panel, Recipe, panel, statics, verdict, with_sharing
from paper.streams import Bench

STREAMS: Final = ("cifar100-10", "office-home", "stl10")


def panels(bench: Bench) -> tuple[Panel, ...]:
    """All, top-k, bottom-k and alternating for each mechanism, and single-task learning, on each stream."""
    streams = bench.streams(*(STREAMS[:1] if bench.scale == "smoke" else STREAMS))
    return tuple(panel(bench, stream, ["none", *with_sharing(statics(stream.depth))]) for stream in streams)


def draw(panels: Sequence[PanelRuns]) -> Findings:
    """A figure and a table for each stream: peak accuracy by configuration and mechanism."""
    sections: list[Section] = []
    found = []
    for of in panels:
        names = static_names(of)
        best = {sharing: best_static(of, sharing) for sharing in SHARING_TITLES}
        found += [
            f"{of.key} {title} with {best[sharing]}" for sharing, title in SHARING_TITLES.items() if best[sharing]
        ]
        sections += [_figure(of, names), _grid(of, names, best)]
    return Findings(verdict=verdict("The best static configuration", found), sections=tuple(sections))


def static_names(of: PanelRuns) -> list[str]:
    """The configurations of a panel, in its order."""
    suffix = f"-{next(iter(SHARING_TITLES))}"
    fixed = ("all-", "top-", "bottom-", "alternating-")
    return [label.removesuffix(suffix) for label in of.labels if label.startswith(fixed) and label.endswith(suffix)]


def static_means(of: PanelRuns, sharing: str, quantity: str) -> dict[str, float]:
    """The finished configurations' means of a quantity."""
    means = {name: of.value(f"{name}-{sharing}", quantity).mean for name in static_names(of)}
    return {name: mean for name, mean in means.items() if mean == mean}


def best_static(of: PanelRuns, sharing: str) -> str:
    """The configuration with the highest peak accuracy; empty if none is finished."""
    known = static_means(of, sharing, "peak_accuracy")
    return max(known, key=lambda name: known[name]) if known else ""


def lasem_dot(of: PanelRuns, sharing: str, quantity: str) -> Dot:
    """LASEM's mark, and behind it the range of the static configurations."""
    lasem, known = of.value(f"lasem-{sharing}", quantity), static_means(of, sharing, quantity).values()
    return Dot(
        row=f"{of.key} · {SHARING_TITLES[sharing]}",
        series="LASEM",
        mean=lasem.mean,
        deviation=lasem.deviation,
        least=min(known, default=None),
        most=max(known, default=None),
    )


def _figure(of: PanelRuns, names: Sequence[str]) -> Section:
    dots = []
    for name in names:
        for sharing, title in SHARING_TITLES.items():
            value = of.value(f"{name}-{sharing}", "peak_accuracy")
            dots.append(Dot(row=name, series=title, mean=value.mean, deviation=value.deviation))
    drawing = draw_dots(
        f"{of.key}-static",
        dots,
        axis="peak accuracy in %, mean over tasks",
        caption="A row for each configuration that all tasks have: all layers transferred, the k nearest to the output "
        "(top) or to the input (bottom), or every second one. Lines reach one standard deviation over seeds to each "
        "side.",
        unit=percent,
    )
    return f"{of.title}: static configurations", drawing


def _grid(of: PanelRuns, names: Sequence[str], best: dict[str, str]) -> Grid:
    rows = []
    for name in names:
        cells = [
            mean_cell(of.value(f"{name}-{sharing}", "peak_accuracy"), percent, strong=best[sharing] == name)
            for sharing in SHARING_TITLES
        ]
        rows.append((Cell(text=name), *cells))
    single = of.value("none", "peak_accuracy")
    alone = f" Single-task learning: {plus_minus(single, percent)} %." if single.num_seeds else ""
    return Grid(
        key=f"{of.key}-table",
        heading=f"{of.title}: peak accuracy, %",
        columns=("Configuration", *SHARING_TITLES.values()),
        rows=tuple(rows),
        note=f"Mean over tasks and seeds ± standard deviation over seeds; the best of each mechanism in bold.{alone}",
    )


RECIPE: Final = Recipe(
    name="architectures",
    title="Evaluation of different architectures",
    about="Does it matter which layers are transferred? Published: the best static configuration varies with mechanism "
    "and stream, and transferring everything is rarely it.",
    panels=panels,
    draw=draw,
)
