"""Two builders of records, so that a test names only what it is about, and a matrix of accuracies."""

from typing import Any

from lasem.records import EpochRecord, TaskRecord

MATRIX = ((0.90, 0.20, 0.30, 0.25), (0.95, 0.80, 0.35, 0.30), (0.75, 0.60, 0.85, 0.28), (0.82, 0.84, 0.65, 0.88))
"""A matrix on which tools that use the same words give different answers."""
LOWER = tuple(row[: i + 1] for i, row in enumerate(MATRIX))
PEAK = (0.90, 0.80, 0.85, 0.88)
FINAL = MATRIX[-1]


def task_record(task: str, index: int, **changes: Any) -> TaskRecord:
    fields: dict[str, Any] = {
        "classes": ("a", "b"),
        "configuration": "ST",
        "configurations": ("SS", "ST", "TS", "TT"),
        "best_epoch": 2,
        "num_epochs": 3,
        "commit_epoch": None,
        "valid_accuracy": 0.5,
        "peak_accuracy": 0.5,
        "parameters_added": 10 + index,
        "parameters_shared": 100,
        "parameters_total": 110 + 10 * index,
    }
    return TaskRecord(task=task, index=index, **(fields | changes))


def epoch_record(task: str, epoch: int, **changes: Any) -> EpochRecord:
    fields: dict[str, Any] = {
        "loss": 1.0,
        "valid_accuracy": 0.5,
        "configuration": "ST",
        "probabilities": (0.1, 0.6, 0.2, 0.1),
        "num_evaluated": 4,
    }
    return EpochRecord(task=task, epoch=epoch, **(fields | changes))
