"""LASEM within the range of the static configurations: the talk's figure "Peak per-task accuracy"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lasem.experiments.recipes import architectures
from lasem.experiments.recipes.architectures import best_static, static_names
from lasem.experiments.recipes.recipe import SHARING_TITLES, Panel, Recipe, panel, statics, with_sharing
from lasem.experiments.recipes.streams import Bench
from lasem.metrics import paired_difference
from lasem.report.figures.dots import Dot, draw_dots
from lasem.report.figures.drawing import Drawing
from lasem.report.numbers import percent
from lasem.report.recipe import Cell, Findings, Grid, PanelRuns, mean_cell
from lasem.report.significance import in_words, p_value_cell, points_cell


def panels(bench: Bench) -> tuple[Panel, ...]:
    """The runs of ``architectures``, and LASEM with each mechanism."""
    streams = bench.streams(*(architectures.STREAMS[:1] if bench.scale == "smoke" else architectures.STREAMS))
    return tuple(panel(bench, stream, ["none", *with_sharing([*statics(stream.depth), "lasem"])]) for stream in streams)


def draw(panels: Sequence[PanelRuns]) -> Findings:
    """A figure of all streams and mechanisms, and a table with the paired difference to the best configuration."""
    dots, rows, said = [], [], []
    for of in panels:
        for sharing, title in SHARING_TITLES.items():
            values = [of.value(f"{name}-{sharing}", "peak_accuracy").mean for name in static_names(of)]
            known = [value for value in values if value == value]
            lasem, best = of.value(f"lasem-{sharing}", "peak_accuracy"), best_static(of, sharing)
            dots.append(
                Dot(
                    row=f"{of.key} · {title}",
                    series="LASEM",
                    mean=lasem.mean,
                    deviation=lasem.deviation,
                    least=min(known, default=None),
                    most=max(known, default=None),
                )
            )
            difference = paired_difference(of.runs_of(f"lasem-{sharing}"), of.runs_of(f"{best}-{sharing}"))
            rows.append(
                (
                    Cell(text=f"{of.title}, {title}"),
                    mean_cell(lasem, percent, strong=True),
                    Cell(text=percent(min(known, default=float("nan")))),
                    mean_cell(of.value(f"{best}-{sharing}", "peak_accuracy"), percent),
                    Cell(text=best or "–"),
                    points_cell(difference),
                    p_value_cell(difference),
                )
            )
            if difference.num_pairs:
                said.append(f"{title} {in_words(difference)}")
    sections: tuple[Grid | tuple[str, Drawing | None], ...] = (
        (
            "LASEM and the range of the static configurations",
            draw_dots(
                "peak",
                dots,
                axis="peak accuracy in %, mean over tasks",
                caption="The mark is LASEM, with one standard deviation over seeds to each side; the grey bar reaches "
                "from the worst to the best static configuration.",
                write=percent,
                scale=100,
            ),
        ),
        Grid(
            key="peak-table",
            heading="LASEM against the best static configuration",
            columns=("Stream, mechanism", "LASEM %", "Worst static %", "Best static %", "which", "Difference", "p"),
            rows=tuple(rows),
            note="The best configuration is chosen after the fact, by the same test accuracy that it is shown with, "
            "which favours it. Difference in points, LASEM minus best, paired over seeds and tasks; p of a two-sided "
            "sign-flip test.",
        ),
    )
    verdict = f"LASEM against the best static configuration: {'; '.join(said)}." if said else "No run is finished yet."
    return Findings(verdict=verdict, sections=sections)


RECIPE: Final = Recipe(
    name="peak",
    title="Peak per-task accuracy",
    about="Does LASEM find a configuration as good as the best static one? Published: it performs toward the upper end "
    "of the range of the static configurations.",
    panels=panels,
    draw=draw,
)
