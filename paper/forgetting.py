"""How much is forgotten, LASEM against the static configurations: the talk's figure "Catastrophic forgetting"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lasem.metrics import paired_difference
from lasem.report.figures.dots import draw_dots
from lasem.report.frame import Cell, difference_cells, mean_cell
from lasem.report.numbers import DASH, in_words, ratio
from paper import peak
from paper.architectures import lasem_dot, static_means
from paper.page import Findings, Grid, PanelRuns
from paper.recipe import SHARING_TITLES, Recipe, verdict


def draw(panels: Sequence[PanelRuns]) -> Findings:
    """A figure of all streams and mechanisms, and a table of forgetting ratios."""
    dots, rows, said = [], [], []
    for of in panels:
        for sharing, title in SHARING_TITLES.items():
            known = static_means(of, sharing, "forgetting_ratio").values()
            lasem = of.value(f"lasem-{sharing}", "forgetting_ratio")
            dots.append(lasem_dot(of, sharing, "forgetting_ratio"))
            runs = [of.runs_of(f"{name}-{sharing}") for name in ("lasem", "all")]
            difference = paired_difference(runs[0], runs[1], "final_accuracies")
            rows.append(
                (
                    Cell(text=f"{of.title}, {title}"),
                    mean_cell(lasem, ratio, strong=True),
                    mean_cell(of.value(f"all-{sharing}", "forgetting_ratio"), ratio),
                    Cell(text=f"{ratio(min(known))} to {ratio(max(known))}" if known else DASH),
                    *difference_cells(difference),
                )
            )
            if difference.num_pairs:
                said.append(f"{of.key} {title} {in_words(difference)}")
    sections = (
        (
            "Final accuracy divided by peak accuracy",
            draw_dots(
                "forgetting",
                dots,
                axis="forgetting ratio, 1 is nothing forgotten",
                caption="The mark is LASEM, with one standard deviation over seeds to each side; the grey bar reaches "
                "from the static configuration that forgets most to the one that forgets least.",
                unit=ratio,
            ),
        ),
        Grid(
            key="forgetting-table",
            heading="What is kept",
            columns=(
                "Stream, mechanism",
                "LASEM",
                "Transfer all",
                "Static configurations",
                "Final accuracy, LASEM − all",
                "p",
            ),
            rows=tuple(rows),
            note="Forgetting ratio: mean over tasks of final / peak accuracy, the last task included. Difference of "
            "final accuracies in points, paired over seeds and tasks; p of a two-sided sign-flip test.",
        ),
    )
    told = verdict("Final accuracy of LASEM against transferring everything", said)
    return Findings(verdict=told, sections=sections)


RECIPE: Final = Recipe(
    name="forgetting",
    title="Catastrophic forgetting",
    about="Does LASEM forget less than static configurations that transfer as much? Published: its forgetting ratio is "
    "above that of transferring everything.",
    panels=peak.panels,
    draw=draw,
)
