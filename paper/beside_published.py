"""A figure of what methods reach here, and beside each what was published of it."""

from __future__ import annotations

from collections.abc import Sequence

from lasem.report.figures.dots import Dot, draw_dots
from lasem.report.numbers import percent, ratio
from paper.page import PanelRuns, Section
from paper.published import Table


def beside_published(
    of: PanelRuns, name: str, quantity: str, stream: str, rows: Sequence[tuple[str, str]], published: Table
) -> Section:
    """Draw a quantity of some methods.

    Args:
        of: the runs.
        name: of the figure, behind the panel's.
        quantity: ``peak_accuracy`` or ``forgetting_ratio``.
        stream: whose published numbers these are.
        rows: the methods, each as its label and what the figure calls it.
        published: the table, accuracies as fractions.
    """
    accuracy = quantity == "peak_accuracy"
    dots = []
    for label, title in rows:
        value, there = of.value(label, quantity), published.get((stream, label))
        beside = there[0] if there else None
        dots.append(Dot(row=title, series="here", mean=value.mean, deviation=value.deviation, published=beside))
    drawing = draw_dots(
        f"{of.key}-{name}",
        dots,
        axis="peak accuracy in %, mean over tasks" if accuracy else "forgetting ratio, 1 is nothing forgotten",
        caption="Filled: here, with one standard deviation over seeds to each side. Not filled: published.",
        unit=percent if accuracy else ratio,
    )
    return f"{of.title}: {'peak accuracy' if accuracy else 'what is kept'}", drawing
