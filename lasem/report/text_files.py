"""The text files of a report: pages, figures, comma-separated values."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from lasem.files import write_file


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """One line for each row below a heading; floats keep every bit, None becomes an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def to_markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; all columns but the first are of numbers. What would end a cell is written as text."""
    lines = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (columns, *rows)]
    head, *body = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([head, "|---" + "|---:" * (len(columns) - 1) + "|", *body]) + "\n"


def write_text(path: Path, text: str) -> Path:
    """Replace a file in one step, also where a name in it is no valid text.

    Not durable: everything that is written here can be drawn again from the records.

    Raises:
        StorageError: if it cannot be written.
    """
    # names of folders may hold bytes that are no UTF-8; Python keeps them as surrogates, which cannot be written
    write_file(path, text.encode("utf-8", errors="replace"), durable=False)
    return path
