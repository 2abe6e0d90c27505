"""LASEM within the range of the static configurations: the talk's figure "Peak per-task accuracy"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lasem.metrics import paired_difference
from lasem.report.figures.dots import draw_dots
from lasem.report.frame import Cell, difference_cells, mean_cell, number_cell
from lasem.report.numbers import DASH, in_words, percent
from paper import architectures
from paper.architectures import best_static, lasem_dot, static_means
from paper.page import Findings, Grid, PanelRuns
from paper.recipe import SHARING_TITLES, Panel, Recipe, panel, statics, verdict, with_sharing
from paper.streams import Bench


def panels(bench: Bench) -> tuple[Panel, ...]:
    """The runs of ``architectures``, and LASEM with each mechanism."""
    streams = bench.streams(*(architectures.STREAMS[:1] if bench.scale == "smoke" else architectures.STREAMS))
    return tuple(panel(bench, stream, ["none", *with_sharing([*statics(stream.depth), "lasem"])]) for stream in streams)


def draw(panels: Sequence[PanelRuns]) -> Findings:
    """A figure of all streams and mechanisms, and a table with the paired difference to the best configuration."""
    dots, rows, said = [], [], []
    for of in panels:
        for sharing, title in SHARING_TITLES.items():
            known = static_means(of, sharing, "peak_accuracy").values()
            lasem, best = of.value(f"lasem-{sharing}", "peak_accuracy"), best_static(of, sharing)
            dots.append(lasem_dot(of, sharing, "peak_accuracy"))
            difference = paired_difference(of.runs_of(f"lasem-{sharing}"), of.runs_of(f"{best}-{sharing}"))
            rows.append(
                (
                    Cell(text=f"{of.title}, {title}"),
                    mean_cell(lasem, percent, strong=True),
                    number_cell(min(known, default=float("nan")), percent),
                    mean_cell(of.value(f"{best}-{sharing}", "peak_accuracy"), percent),
                    Cell(text=best or DASH),
                    *difference_cells(difference),
                )
            )
            if difference.num_pairs:
                said.append(f"{of.key} {title} {in_words(difference)}")
    sections = (
        (
            "LASEM and the range of the static configurations",
            draw_dots(
                "peak",
                dots,
                axis="peak accuracy in %, mean over tasks",
                caption="The mark is LASEM, with one standard deviation over seeds to each side; the grey bar reaches "
                "from the worst to the best static configuration.",
                unit=percent,
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
    return Findings(verdict=verdict("LASEM against the best static configuration", said), sections=sections)


RECIPE: Final = Recipe(
    name="peak",
    title="Peak per-task accuracy",
    about="Does LASEM find a configuration as good as the best static one? Published: it performs toward the upper end "
    "of the range of the static configurations.",
    panels=panels,
    draw=draw,
)
