"""``accuracy_matrix.csv``: the accuracy matrix for spreadsheets and other tools."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lasem.metrics import Run
from lasem.records import Record
from lasem.report.text_files import to_csv, write_text


def write_accuracy_matrix(records: Iterable[Record], path: Path) -> Path:
    """Write the matrix that the EvaluationRecords hold, in one step.

    The columns are ``after_training_task, test_on_task_1, ..., test_on_task_T``. Tasks are numbered from 1 in the order
    of learning; accuracies are fractions in [0, 1]; a cell is empty where nothing was measured.

    Args:
        records: everything recorded of one seed so far.
        path: the file, for instance ``RUN/seeds/0/accuracy_matrix.csv``.
    Raises:
        StorageError: if the file cannot be written.
    """
    matrix = Run(0, tuple(records)).accuracy_matrix
    columns = ["after_training_task", *(f"test_on_task_{j + 1}" for j in range(len(matrix)))]
    rows = [[i + 1, *(float(a) if a == a else None for a in row)] for i, row in enumerate(matrix)]
    return write_text(Path(path), to_csv(columns, rows))
