"""Every static configuration of every mechanism: the talk's figure "Evaluation of different architectures"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lasem.report.figures.bars import Dot, draw_dots
from lasem.report.numbers import method_name, percent, plus_minus
from paper.recipe import SHARING_TITLES, Findings, Panel, Recipe, panel, verdict, with_sharing
from paper.runs import PanelRuns
from paper.streams import Scale, Stream
from paper.table import ACCURACY_AXIS, LINES, SPREAD, Columns, Row, Section, dot, measured, table

STREAMS: Final = ("cifar100-10", "office-home", "stl10")


def streams(scale: Scale) -> tuple[Stream, ...]:
    """The streams of the talk's figures; one of them for a smoke test."""
    return scale.streams(*(STREAMS[:1] if scale.name == "smoke" else STREAMS))


def statics(depth: int) -> tuple[str, ...]:
    """The static configurations of the paper's figures: all, top-k, bottom-k, alternating."""
    some = [f"{end}-{count}" for end in ("top", "bottom") for count in range(1, depth)]
    return ("all", *some, "alternating")


def panels(scale: Scale) -> tuple[Panel, ...]:
    """All, top-k, bottom-k and alternating for each mechanism, and single-task learning, on each stream."""
    return tuple(panel(of, ["none", *with_sharing(statics(of.depth))]) for of in streams(scale))


def draw(panels: Sequence[PanelRuns]) -> Findings:
    """A figure and a table for each stream: peak accuracy by configuration and mechanism."""
    sections: list[Section] = []
    said = []
    for of in panels:
        best = {sharing: best_static(of, sharing) for sharing in SHARING_TITLES}
        said += [
            f"{of.key} {SHARING_TITLES[sharing]} with {method_name(name)}" for sharing, name in best.items() if name
        ]
        rows = [Row(method_name(name), of, name) for name in static_names(of)]
        dots = [
            dot(row.title, title, of.value(f"{row.label}-{sharing}", "peak_accuracy"))
            for row in rows
            for sharing, title in SHARING_TITLES.items()
        ]
        single = of.value("none", "peak_accuracy")
        alone = f" Single-task learning: {plus_minus(single, percent)} %." if single.num_seeds else ""
        drawing = draw_dots(
            f"{of.key}-static",
            dots,
            axis=ACCURACY_AXIS,
            caption="A row for each configuration that all tasks have: all layers transferred, the k nearest to the "
            f"output (top) or to the input (bottom), or every second one. {LINES}",
            unit=percent,
        )
        sections += [
            (f"{of.title}: static configurations", drawing),
            table(
                f"{of.key}-table",
                f"{of.title}: peak accuracy, %",
                "Configuration",
                rows,
                [_column(sharing, title, best[sharing]) for sharing, title in SHARING_TITLES.items()],
                f"{SPREAD}; the best of each mechanism in bold.{alone}",
            ),
        ]
    return Findings(verdict=verdict("The best static configuration", said), sections=sections)


def _column(sharing: str, title: str, best: str) -> Columns:
    return measured(
        title,
        "peak_accuracy",
        percent,
        label=lambda row: f"{row.label}-{sharing}",
        strong=lambda row: row.label == best,
    )


def static_names(of: PanelRuns) -> list[str]:
    """The configurations of a panel, in its order."""
    labels = [label.removesuffix("-hps") for label in of.labels if label.endswith("-hps")]
    return [label for label in labels if label.partition("-")[0] in ("all", "top", "bottom", "alternating")]


def static_means(of: PanelRuns, sharing: str, quantity: str) -> dict[str, float]:
    """The finished configurations' means of a quantity."""
    means = {name: of.value(f"{name}-{sharing}", quantity).mean for name in static_names(of)}
    return {name: mean for name, mean in means.items() if mean == mean}


def best_static(of: PanelRuns, sharing: str) -> str:
    """The configuration with the highest peak accuracy; empty if none is finished."""
    known = static_means(of, sharing, "peak_accuracy")
    return max(known, key=lambda name: known[name], default="")


def lasem_rows(panels: Sequence[PanelRuns]) -> list[Row]:
    """LASEM with each mechanism on each stream."""
    return [
        Row(f"{of.title}, {title}", of, f"lasem-{sharing}", title)
        for of in panels
        for sharing, title in SHARING_TITLES.items()
    ]


def lasem_dot(row: Row, quantity: str) -> Dot:
    """LASEM's mark, and the range of the static configurations as a bar."""
    known = static_means(row.of, row.sharing, quantity).values()
    least, most = min(known, default=None), max(known, default=None)
    return dot(f"{row.of.key} · {row.name}", "LASEM", row.of.value(row.label, quantity), least=least, most=most)


RECIPE: Final = Recipe(
    name="architectures",
    title="Evaluation of different architectures",
    about="Does it matter which layers are transferred? Published: the best static configuration varies with mechanism "
    "and stream, and transferring everything is rarely it.",
    panels=panels,
    draw=draw,
)
