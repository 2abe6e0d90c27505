"""A seed's records and timings on disk: appended, and after a kill cut back to where the run goes on.

The lines themselves say where they belong: a task's end is its EvaluationRecord (a timing without an epoch), so no
position needs to be stored.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import final

from lasem.errors import StorageError
from lasem.files import append
from lasem.records import (
    EpochRecord,
    EvaluationRecord,
    Record,
    TaskRecord,
    TimingRecord,
    from_json,
    of_kind,
    read_records,
    to_json,
)


@final
@dataclass(frozen=True)
class Journal:
    """``records.jsonl`` and ``timings.jsonl`` of one seed."""

    folder: Path

    @property
    def records(self) -> Path:
        """Results only: the same seed gives the same bytes."""
        return self.folder / "records.jsonl"

    @property
    def timings(self) -> Path:
        """Wall-clock times."""
        return self.folder / "timings.jsonl"

    def add_epoch(self, record: EpochRecord, timing: TimingRecord) -> None:
        """Append an epoch. A process that is killed keeps it, as the checkpoint that is saved next needs."""
        append(self.timings, to_json(timing) + "\n")
        append(self.records, to_json(record) + "\n")

    def add_task(self, record: TaskRecord, evaluation: EvaluationRecord, timing: TimingRecord) -> None:
        """Append a task's end, and wait for the disk: the model that is saved next relies on it."""
        append(self.timings, to_json(timing) + "\n", durable=True)
        append(self.records, f"{to_json(record)}\n{to_json(evaluation)}\n", durable=True)

    def cut_back(self, num_learned: int, num_epochs: int) -> bool:
        """Drop everything after some tasks and some epochs of the next one.

        Returns:
            Whether the records reach that far. If they do not, nothing is dropped.

        Raises:
            StorageError: if a file is damaged or cannot be written.
        """
        ends = [(path, _end(path, num_learned, num_epochs)) for path in (self.records, self.timings)]
        if any(end is None for _, end in ends):
            return False
        for path, end in ends:
            if path.exists():
                try:
                    os.truncate(path, end or 0)
                except OSError as error:
                    raise StorageError(f"Cannot write {path}: {error.strerror}.") from error
        return True

    def seconds(self, task: str) -> float:
        """Return the time spent on a task so far, before and after any interruption."""
        timings = of_kind(read_records(self.timings), TimingRecord)
        return sum(t.seconds_training + t.seconds_evaluating for t in timings if t.task == task)


def _end(path: Path, num_learned: int, num_epochs: int) -> int | None:
    """Return the position after the last line to keep; None if there are fewer lines."""
    end = 0
    if num_learned == num_epochs == 0:
        return end
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError:
        return None
    for line in lines:
        if not line.endswith(b"\n"):
            break  # a killed process left a part of a line
        record = from_json(line.decode(errors="replace"))
        end += len(line)
        if num_learned > 0:
            num_learned -= _ends_task(record)
        elif isinstance(record, EpochRecord | TimingRecord) and not _ends_task(record):
            num_epochs -= 1
        else:
            return None
        if num_learned == num_epochs == 0:
            return end
    return None


def _ends_task(record: Record) -> bool:
    return isinstance(record, EvaluationRecord) or (isinstance(record, TimingRecord) and record.epoch is None)
