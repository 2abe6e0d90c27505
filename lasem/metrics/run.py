"""One seed of an experiment, read from its files: the tasks in order, their epochs, the accuracy matrix."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from lasem.errors import StorageError
from lasem.metrics.matrix import Matrix
from lasem.records import EpochRecord, EvaluationRecord, Record, TaskRecord, TimingRecord, of_kind, read_records


@dataclass(frozen=True)
class Run:
    """The records of one seed, finished or not.

    What was recorded twice, because a process was killed and went on, counts once: the later record holds.
    """

    seed: int
    records: tuple[Record, ...]
    timings: tuple[TimingRecord, ...] = ()

    @cached_property
    def tasks(self) -> tuple[TaskRecord, ...]:
        """The tasks learned to their end, in the order of learning."""
        last = {record.task: record for record in of_kind(self.records, TaskRecord)}
        return tuple(sorted(last.values(), key=lambda record: record.index))

    @cached_property
    def _epochs(self) -> dict[str, dict[int, EpochRecord]]:
        epochs: dict[str, dict[int, EpochRecord]] = {}
        for record in of_kind(self.records, EpochRecord):
            epochs.setdefault(record.task, {})[record.epoch] = record
        return epochs

    def epochs(self, task: str) -> tuple[EpochRecord, ...]:
        """The epochs of one task in order; empty if it has none."""
        by_number = self._epochs.get(task, {})
        return tuple(by_number[epoch] for epoch in sorted(by_number))

    @cached_property
    def unfinished_task(self) -> str | None:
        """The task that has epochs but was not learned to its end: the run goes on, or was killed there."""
        learned = {record.task for record in self.tasks}
        return next((task for task in reversed(self._epochs) if task not in learned), None)

    @cached_property
    def evaluations(self) -> dict[str, dict[str, float]]:
        """Test accuracies after each task, by the names of both, in the order of learning."""
        rows = {record.after_task: record.accuracies for record in of_kind(self.records, EvaluationRecord)}
        return {record.task: rows[record.task] for record in self.tasks if record.task in rows}

    @property
    def evaluated_tasks(self) -> tuple[TaskRecord, ...]:
        """The tasks that have a row in the accuracy matrix; all of ``tasks`` unless the run was killed in between."""
        return tuple(record for record in self.tasks if record.task in self.evaluations)

    @cached_property
    def accuracy_matrix(self) -> Matrix:
        """``a[i][j]``, test accuracy on task j after task i of ``evaluated_tasks``; NaN where not measured."""
        rows = self.evaluations
        entries = [[row.get(task, np.nan) for task in rows] for row in rows.values()]
        return np.array(entries, dtype=np.float64).reshape(len(rows), len(rows))

    @cached_property
    def peak_accuracies(self) -> Matrix:
        """Peak per-task accuracy of each of ``evaluated_tasks``."""
        return np.array([record.peak_accuracy for record in self.evaluated_tasks], dtype=np.float64)

    @cached_property
    def final_accuracies(self) -> Matrix:
        """The last row of the matrix: accuracy of each of ``evaluated_tasks`` at the end, or so far."""
        return self.accuracy_matrix[-1] if len(self.accuracy_matrix) else np.empty(0)


def load_run(folder: Path) -> Run:
    """Read ``records.jsonl`` and, if it is there, ``timings.jsonl`` of a seed's folder, which the seed names.

    Raises:
        StorageError: if the folder is not named by a seed, or its records are missing or damaged.
    """
    folder = Path(folder)
    try:
        seed = int(folder.name)
    except ValueError as error:
        raise StorageError(
            f"Expected a seed's folder, named by its number as in RUN/seeds/0; got {folder}. "
            "Use load_runs for the folder of a whole run."
        ) from error
    timings = folder / "timings.jsonl"
    timed: dict[tuple[str, int | None], TimingRecord] = {}
    for record in of_kind(read_records(timings) if timings.exists() else [], TimingRecord):
        timed[record.task, record.epoch] = record  # an epoch repeated after a restart counts once
    return Run(seed, tuple(read_records(folder / "records.jsonl")), tuple(timed.values()))


def load_runs(run_dir: Path) -> tuple[Run, ...]:
    """Read every seed under ``RUN/seeds``, by number; seeds that have no records yet are passed over.

    Raises:
        StorageError: if no seed has records, or some are damaged.
    """
    folders = [f for f in Path(run_dir).glob("seeds/*") if f.name.isdecimal() and (f / "records.jsonl").exists()]
    if not folders:
        raise StorageError(
            f"Expected the folder of a run, holding seeds/0/records.jsonl or more seeds; found none in {run_dir}. "
            "Pass the folder that a run was told to write to."
        )
    return tuple(load_run(folder) for folder in sorted(folders, key=lambda f: int(f.name)))
