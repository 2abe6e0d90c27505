"""LASEM against other methods that share selectively: the talk's table on Office-Home."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lasem.experiments.recipes import published
from lasem.experiments.recipes.recipe import Panel, Recipe, panel
from lasem.experiments.recipes.streams import Bench
from lasem.metrics import paired_difference
from lasem.report.figures.dots import Dot, draw_dots
from lasem.report.figures.drawing import Drawing
from lasem.report.numbers import percent, ratio
from lasem.report.recipe import Cell, Findings, Grid, PanelRuns, mean_cell, published_cell
from lasem.report.significance import p_value_cell, points_cell

METHODS: Final = {
    "den": "DEN",
    "apd": "APD",
    "prognn": "ProgNN",
    "darts-hps": "DARTS HPS",
    "darts-dfcnn": "DARTS DF-CNN",
    "lasem-hps": "LASEM HPS",
    "lasem-tf": "LASEM TF",
    "lasem-dfcnn": "LASEM DF-CNN",
}


def panels(bench: Bench) -> tuple[Panel, ...]:
    """Every method of the table."""
    return tuple(panel(bench, stream, list(METHODS)) for stream in bench.streams("office-home"))


def draw(panels: Sequence[PanelRuns]) -> Findings:
    """The table with the published numbers beside, and a figure of both quantities."""
    sections: list[Grid | tuple[str, Drawing | None]] = []
    said = ""
    for of in panels:
        best = _best_lasem(of)
        means = {label: of.value(label, "peak_accuracy").mean for label in METHODS}
        known = {label: mean for label, mean in means.items() if mean == mean}
        if known:
            top = max(known, key=lambda label: known[label])
            said = f"The highest peak accuracy is {METHODS[top]}'s, {percent(known[top])} %; of LASEM's mechanisms "
            said += f"{METHODS[best]} has {percent(known[best])} %." if best in known else "none is finished."
        sections += [
            _grid(of, best),
            _figure(of, "peak_accuracy", "peak accuracy in %, mean over tasks", 100),
            _figure(of, "forgetting_ratio", "forgetting ratio, 1 is nothing forgotten", 1),
        ]
    return Findings(verdict=said or "No run is finished yet.", sections=tuple(sections))


def _best_lasem(of: PanelRuns) -> str:
    labels = [label for label in METHODS if label.startswith("lasem") and of.runs_of(label)]
    return max(labels, key=lambda label: of.value(label, "peak_accuracy").mean) if labels else "lasem-hps"


def _grid(of: PanelRuns, best: str) -> Grid:
    accuracies, rows = published.fractions(published.SELECTIVE_ACCURACY), []
    for label, title in METHODS.items():
        seconds = [summary.seconds_training for summary in of.summaries.get(label, {}).values()]
        difference = paired_difference(of.runs_of(best), of.runs_of(label))
        key = (of.stands_for, label)
        rows.append(
            (
                Cell(text=title),
                mean_cell(of.value(label, "peak_accuracy"), percent),
                published_cell(accuracies.get(key), percent),
                mean_cell(of.value(label, "forgetting_ratio"), ratio),
                published_cell(published.SELECTIVE_FORGETTING.get(key), _two),
                Cell(text=_thousands(sum(seconds) / len(seconds)) if seconds else "–", number=_mean(seconds)),
                published_cell(published.SELECTIVE_KILOSECONDS.get(key), _one),
                Cell(text="–") if label == best else points_cell(difference),
                Cell(text="–") if label == best else p_value_cell(difference),
            )
        )
    return Grid(
        key=f"{of.key}-table",
        heading=f"{of.title}: accuracy, forgetting and time",
        columns=(
            "Method",
            "Peak accuracy %",
            "published %",
            "Final / peak",
            "published",
            "Time, 1000 s",
            "published time",
            f"{METHODS[best]} − method",
            "p",
        ),
        rows=tuple(rows),
        note="Mean over tasks and seeds ± standard deviation over seeds; time of optimisation steps alone. Difference "
        "of peak accuracies in points, paired over seeds and tasks; p of a two-sided sign-flip test.",
    )


def _figure(of: PanelRuns, quantity: str, axis: str, scale: float) -> tuple[str, Drawing | None]:
    table = published.SELECTIVE_FORGETTING
    if quantity == "peak_accuracy":
        table = published.fractions(published.SELECTIVE_ACCURACY)
    dots = []
    for label, title in METHODS.items():
        value, there = of.value(label, quantity), table.get((of.stands_for, label))
        beside = there[0] if there else None
        dots.append(Dot(row=title, series="here", mean=value.mean, deviation=value.deviation, published=beside))
    drawing = draw_dots(
        f"{of.key}-{quantity.replace('_', '-')}",
        dots,
        axis=axis,
        caption="Filled: here, with one standard deviation over seeds to each side. Not filled: published.",
        write=percent if quantity == "peak_accuracy" else ratio,
        scale=scale,
    )
    return f"{of.title}: {'peak accuracy' if quantity == 'peak_accuracy' else 'what is kept'}", drawing


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _thousands(seconds: float) -> str:
    return f"{seconds / 1000:.2f}" if seconds >= 10 else f"{seconds / 1000:.4f}"


def _one(value: float) -> str:
    return f"{value:.1f}"


def _two(value: float) -> str:
    return f"{value:.2f}"


RECIPE: Final = Recipe(
    name="selective",
    title="Against other selective-sharing methods",
    about="How does LASEM compare with methods that decide otherwise what to share? Published, on Office-Home: as "
    "accurate as ProgNN and APD, far above DEN and DARTS, and it forgets little.",
    panels=panels,
    draw=draw,
)
