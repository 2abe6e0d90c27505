"""A paired difference in tables and sentences."""

from __future__ import annotations

from dataclasses import dataclass

from lasem.metrics import PairedDifference
from lasem.report.numbers import DASH, percent


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a table."""

    text: str
    below: str = ""
    """Smaller, below it: a deviation, or what the number is of."""
    number: float | None = None
    """What is written, unrounded and in the column's unit, to sort by; None: by the text."""
    deviation: float | None = None
    """What stands below, unrounded, if it is a deviation."""
    strong: bool = False


def difference_cells(difference: PairedDifference | None) -> tuple[Cell, Cell]:
    """The mean difference in points with the seeds in which it is above zero, and the p-value with the number of pairs.

    Dashes where there is no pair; None is for the row that the others are compared with.
    """
    if difference is None or not difference.num_pairs:
        return Cell(text=DASH), Cell(text=DASH)
    seeds = f"{difference.num_seeds_above} of {difference.num_seeds} seeds"
    return (
        Cell(text=_signed(difference.mean), below=seeds, number=percent.scale * difference.mean),
        Cell(text=_p(difference.p_value), below=f"{difference.num_pairs} pairs", number=difference.p_value),
    )


def difference_cell(difference: PairedDifference | None) -> Cell:
    """Both in one: the mean difference in points, and below it the p-value."""
    mean, p_value = difference_cells(difference)
    return Cell(text=mean.text, number=mean.number, below="" if p_value.number is None else f"p {p_value.text}")


def in_words(difference: PairedDifference) -> str:
    """``+0.8 points (p 0.03)``."""
    return f"{_signed(difference.mean)} points (p {_p(difference.p_value)})"


def _signed(fraction: float) -> str:
    written = percent(fraction)
    return written if written[:1] in ("\N{MINUS SIGN}", DASH) or written == "0.0" else f"+{written}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"
