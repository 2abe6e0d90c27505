"""Two small records builders, so that a test names only what it is about."""

from typing import Any

from lasem.records import EpochRecord, TaskRecord


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
