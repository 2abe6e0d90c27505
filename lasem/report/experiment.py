"""The files of one experiment: the runs of its seeds, settings, environment and accuracy matrices."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from lasem.errors import StorageError
from lasem.metrics import Run, Statistic, Summary, aggregate, load_runs, summarise
from lasem.records import Record
from lasem.report.frame import to_csv, write_text


@dataclass(frozen=True)
class Progress:
    """The state of one seed."""

    num_learned: int
    num_expected: int
    unfinished_task: str | None
    """The task that was being learned when the files were read."""
    num_epochs: int
    """Epochs of that task so far."""

    @property
    def finished(self) -> bool:
        """Whether every task that is known of was learned and evaluated."""
        return self.unfinished_task is None and 0 < self.num_expected <= self.num_learned


@dataclass(frozen=True)
class Experiment:
    """One experiment: the run of every seed, and its settings and environment where they are known."""

    name: str
    runs: tuple[Run, ...]
    config: str | None
    """``config.yaml`` as it is, or None."""
    environment: dict[str, str]
    """``environment.json``, flattened: ``torch`` or ``device.name`` to text; a list as the words of a command."""

    @property
    def method(self) -> str | None:
        """The baseline that learned, which has no configurations to choose from; None for sharing and search."""
        method = plain_settings(self.config).get("method")
        name = method.get("name") if isinstance(method, dict) else None
        return name if isinstance(name, str) else None

    def progress(self, run: Run) -> Progress:
        """The state of a seed; expected is ``num_tasks`` of environment.json, or what the seed with most tasks has."""
        stated = self.environment.get("num_tasks", "")
        known = [len(r.tasks) + (r.unfinished_task is not None) for r in self.runs]
        return Progress(
            num_learned=len(run.evaluated_tasks),
            num_expected=max(*known, int(stated) if stated.isdecimal() else 0, 0),
            unfinished_task=run.unfinished_task,
            num_epochs=len(run.epochs(run.unfinished_task)) if run.unfinished_task is not None else 0,
        )

    @cached_property
    def summaries(self) -> dict[int, Summary]:
        """The quantities of each seed."""
        return {run.seed: summarise(run) for run in self.runs}

    @cached_property
    def means(self) -> dict[str, Statistic]:
        """Mean and deviation of each quantity over the seeds of ``comparable_runs``."""
        return aggregate([self.summaries[run.seed] for run in self.comparable_runs])

    @property
    def num_tasks(self) -> int:
        """The tasks that the seed with most of them has learned and evaluated."""
        return max(summary.num_tasks for summary in self.summaries.values())

    @property
    def comparable_runs(self) -> tuple[Run, ...]:
        """The runs to average over: the finished ones, or all if none is finished."""
        return tuple(run for run in self.runs if self.progress(run).finished) or self.runs


def load_experiment(run_dir: Path) -> Experiment:
    """Read the folder of a run, finished or not.

    Raises:
        StorageError: if it is no run's folder, or a file in it is damaged.
    """
    run_dir = Path(run_dir)
    runs = load_runs(run_dir)
    config = _read(run_dir / "config.yaml")
    environment = read_environment(run_dir / "environment.json")
    return Experiment(run_dir.resolve().name, runs, config, environment)


def read_environment(path: Path, key: str | None = None) -> dict[str, str]:
    """Read a JSON file of versions, machine and command, flattened; empty if there is none.

    Args:
        path: the file.
        key: the entry to read; None: all of it.

    Raises:
        StorageError: if it is damaged.
    """
    text = _read(path)
    if text is None:
        return {}
    try:
        entry = json.loads(text)
    except ValueError as error:
        raise StorageError(f"Expected JSON in {path}; {error}. Delete the file to report without it.") from error
    return dict(_flatten(entry if key is None else entry.get(key, {})))


def plain_settings(config: str | None) -> dict[str, Any]:
    """Return the settings in a ``config.yaml``; empty if it is no YAML of settings, for a report does without them."""
    try:
        found = yaml.safe_load(config or "")
    except (yaml.YAMLError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def flat_settings(plain: dict[str, Any]) -> dict[str, Any]:
    """Return every setting as ``part.setting``; no deeper, for YAML from a stranger may contain itself."""
    found: dict[str, Any] = {}
    for part, value in plain.items():
        found |= {f"{part}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {part: value}
    return found


def write_accuracy_matrix(records: Iterable[Record], path: Path) -> Path:
    """Write the accuracy matrix of EvaluationRecords for spreadsheets, in one step.

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


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"Expected text in {path}; {error}. Delete the file to report without it.") from error


def _flatten(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flatten(inner, (*path, str(key)))
    elif isinstance(value, list):
        yield ".".join(path), shlex.join(str(item) for item in value)  # a command, to be typed again
    elif value is not None:
        yield ".".join(path), str(value)
