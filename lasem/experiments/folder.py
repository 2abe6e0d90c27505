"""The folder of a run: a lock, the environment, and the records of each seed."""

import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import Any, final

import numpy
import torch

from lasem import files
from lasem.errors import StorageError, quoted
from lasem.experiments.config import ExperimentConfig
from lasem.experiments.parts import DEFAULT_NAMES, folder_name
from lasem.files import append, check_links, parse_json, regular_bytes, write_file
from lasem.records import (
    EpochRecord,
    EvaluationRecord,
    TaskRecord,
    TimingRecord,
    from_json,
    of_kind,
    read_records,
    to_json,
)

CONFIG = "config.yaml"
"""A folder that holds this file holds a run."""

_SAME = ("python", "torch", "numpy", "lasem", "platform", "device_name", "threads")
"""What the last bits of a run may depend on, of its environment."""


@contextmanager
def locked(directory: Path, check: Callable[[Path], None]) -> Iterator[None]:
    """Hold a folder, which is made if it does not exist; StorageError as ``check``, or if another process holds it.

    ``check`` raises StorageError if the folder holds something else than it must: ``check_free``, ``check_run`` or
    ``check_comparison``.
    """
    if not (directory / files.LOCK).exists():
        check(directory)  # a folder of something else gets no lock file
    busy = f"Another process is writing to {directory}. Wait until it ends, or choose another folder."
    with files.locked(directory, busy):
        check(directory)
        yield


def check_free(directory: Path) -> None:
    """Raise StorageError unless a folder is new or empty, except for what a run leaves that is killed at its start."""
    if directory.exists() and not directory.is_dir():
        raise StorageError(f"Expected a new folder for the run; {directory} is a file. Choose another folder.")
    names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    taken = sorted(name for name in names if name != files.LOCK and not fnmatch(name, f".{CONFIG}.*.tmp"))
    if CONFIG in taken:
        raise StorageError(
            f"{directory} holds a run already. Continue it with --resume {quoted(str(directory))}, or choose another "
            f"folder."
        )
    if taken:
        raise StorageError(
            f"Expected a new or empty folder for the run; {directory} holds {', '.join(taken[:3])}"
            f"{', ...' if len(taken) > 3 else ''}. Choose another folder."
        )


def check_run(directory: Path) -> None:
    """Raise StorageError unless a folder holds a run."""
    if not directory.is_dir():
        raise StorageError(f"Expected the folder of a run; there is no folder {directory}.")
    if not (directory / CONFIG).is_file():
        raise StorageError(
            f"Expected the folder of a run, which holds {CONFIG}; {directory} does not. Give the folder that the run "
            f"writes to, or start a new run."
        )
    check_links(directory)


def check_comparison(directory: Path) -> None:
    """Raise StorageError if a folder cannot be that of a comparison, new or begun before."""
    if (directory / CONFIG).exists():
        raise StorageError(f"{directory} holds a run, not a comparison of runs. Choose another folder.")


def next_free(parent: Path, config: ExperimentConfig) -> Path:
    """Make the first folder ``STREAM-SHARING-SEARCH-001`` or ``STREAM-METHOD-001``, ... that does not exist yet."""
    names = {part: folder_name(getattr(config, part)) for part in config.parts if part not in ("net", "training")}
    if names.get("protect") == DEFAULT_NAMES["protect"]:
        del names["protect"]
    stem = "-".join(names.values())
    number = 0
    while True:
        number += 1
        directory = parent / f"{stem}-{number:03d}"
        try:
            directory.mkdir(parents=True)  # fails where another process was quicker
            return directory
        except FileExistsError:
            if not parent.is_dir():
                raise StorageError(f"Expected a folder for runs; {parent} is a file. Choose another.") from None
        except OSError as error:
            raise StorageError(f"Cannot make {directory}: {error.strerror}. Choose another folder.") from error


def describe_environment(device: torch.device, command: Sequence[str], num_tasks: int | None) -> dict[str, Any]:
    """Return plain values for ``environment.json``; paths are only those that a person typed in ``command``."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "command": list(command),
        "num_tasks": num_tasks,
        "lasem": version("lasem"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "device_name": name,
    }


def keep_environment(path: Path, about: dict[str, Any]) -> list[str]:
    """Write it to a run's folder once, and return what of it has changed since."""
    place = path / "environment.json"
    try:
        before = parse_json(place, regular_bytes(place))
    except (OSError, StorageError):
        write_file(place, json.dumps(about, indent=1) + "\n")
        return []
    return [f"{key} was {before.get(key)} and is {about[key]}" for key in _SAME if before.get(key) != about[key]]


@final
class Journal:
    """A seed's records and timings on disk: appended, and after a kill cut back to where the run goes on.

    The lines themselves say where they belong: a task's end is its EvaluationRecord (a timing without an epoch), so no
    position needs to be stored.
    """

    def __init__(self, directory: Path) -> None:
        self.records = directory / "records.jsonl"  # results only: the same seed gives the same bytes
        self.timings = directory / "timings.jsonl"  # wall-clock times

    def add_epoch(self, record: EpochRecord, timing: TimingRecord) -> None:
        """Append an epoch. A process that is killed keeps it, as the checkpoint that is saved next needs."""
        append(self.timings, to_json(timing) + "\n")
        append(self.records, to_json(record) + "\n")

    def add_task(self, record: TaskRecord, evaluation: EvaluationRecord, timing: TimingRecord) -> None:
        """Append a task's end, and wait for the disk: the model that is saved next relies on it."""
        append(self.timings, to_json(timing) + "\n", durable=True)
        append(self.records, f"{to_json(record)}\n{to_json(evaluation)}\n", durable=True)

    def cut_back(self, num_learned: int, num_epochs: int) -> bool:
        """Drop everything after some tasks and some epochs of the next one, unless there are fewer; return if not.

        StorageError if a file is damaged or cannot be written.
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
        lines = regular_bytes(path).splitlines(keepends=True)
    except OSError:
        return None
    for line in lines:
        if not line.endswith(b"\n"):
            break  # a killed process left a part of a line
        record = from_json(line.decode(errors="replace"))
        ends_task = isinstance(record, EvaluationRecord) or (isinstance(record, TimingRecord) and record.epoch is None)
        end += len(line)
        if num_learned > 0:
            num_learned -= ends_task
        elif isinstance(record, EpochRecord | TimingRecord) and not ends_task:
            num_epochs -= 1
        else:
            return None
        if num_learned == num_epochs == 0:
            return end
    return None
