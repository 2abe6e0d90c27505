"""The files of one experiment: the runs of its seeds, settings, environment and accuracy matrices."""

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lasem.errors import ConfigError, StorageError, quoted
from lasem.files import check_links, read_text
from lasem.metrics import Run, Statistic, Summary, aggregate, load_runs, summarise
from lasem.records import Record
from lasem.report.frame import to_csv, write_text
from lasem.settings import flat, from_yaml

INDEX = "comparison.json"
"""A folder that holds this file holds a comparison."""

SeedRuns = dict[int, tuple[Run, str | None]]
"""By seed, each with its settings as YAML."""


@dataclass(frozen=True)
class Experiment:
    """One experiment: the run of every seed, and its settings and environment where they are known."""

    folder: Path
    runs: tuple[Run, ...]
    config: str | None
    """``config.yaml`` as it is, or None."""
    environment: dict[str, str]
    """``environment.json`` as ``read_environment`` gives it: ``torch`` or ``device.name`` to text."""

    @property
    def name(self) -> str:
        """What the folder is called."""
        return self.folder.resolve().name

    @property
    def method(self) -> str | None:
        """The baseline that learned, which has no configurations to choose from; None for sharing and search."""
        method = plain_settings(self.config).get("method")
        name = method.get("name") if isinstance(method, dict) else None
        return name if isinstance(name, str) else None

    @property
    def num_expected(self) -> int:
        """The tasks of a seed: ``num_tasks`` of environment.json, or as many as the seed with most tasks has."""
        stated = self.environment.get("num_tasks", "")
        known = [len(run.tasks) + (run.unfinished_task is not None) for run in self.runs]
        return max(*known, int(stated) if stated.isdecimal() and len(stated) < 10 else 0, 0)

    def has_all_tasks(self, run: Run) -> bool:
        """Whether a seed has learned and evaluated every task that is known of."""
        return run.unfinished_task is None and 0 < self.num_expected <= len(run.evaluated_tasks)

    def is_finished(self, run: Run) -> bool:
        """Whether a seed has come to its end: all tasks, and nothing left to go on from."""
        return self.has_all_tasks(run) and not (self.folder / "seeds" / str(run.seed) / "checkpoint").exists()

    @cached_property
    def summaries(self) -> dict[int, Summary]:
        """The quantities of each seed."""
        return {run.seed: summarise(run) for run in self.runs}

    @cached_property
    def means(self) -> dict[str, Statistic]:
        """Mean and deviation of each quantity over the seeds of ``comparable_runs``."""
        return aggregate([self.summaries[run.seed] for run in self.comparable_runs])

    @property
    def share_of_separate_models(self) -> str:
        """The parameters in per cent of what a model for each task would hold; empty if that is not known."""
        separate = self.means["parameters_of_separate_models"].mean
        return f"{100 * self.means['parameters_total'].mean / separate:.0f} %" if separate > 0 else ""

    @property
    def num_tasks(self) -> int:
        """The tasks that the seed with most of them has learned and evaluated."""
        return max(summary.num_tasks for summary in self.summaries.values())

    @property
    def comparable_runs(self) -> tuple[Run, ...]:
        """The runs to average over: the finished ones, or all if none is finished."""
        return tuple(run for run in self.runs if self.has_all_tasks(run)) or self.runs


def load_experiment(run_dir: Path) -> Experiment:
    """Read the folder of a run, finished or not; StorageError if it is none, or a file in it is damaged."""
    run_dir = Path(run_dir)
    check_links(run_dir)
    config, environment = text_of(run_dir / "config.yaml"), read_environment(run_dir / "environment.json")
    return Experiment(run_dir, load_runs(run_dir), config, environment)


def finished_runs(directory: Path, labels: Sequence[str], seeds: Sequence[int]) -> dict[str, SeedRuns]:
    """Read the finished runs of some methods of a comparison, by label; StorageError if a file is damaged."""
    found: dict[str, SeedRuns] = {label: {} for label in labels}
    for label in labels:
        for seed in seeds:
            folder = directory / f"{label}-{seed}"
            if os.path.exists(folder / "seeds" / str(seed) / "records.jsonl"):  # False also for a name that is too long
                experiment = load_experiment(folder)
                for run in experiment.runs:
                    if run.seed == seed and experiment.is_finished(run):
                        found[label][seed] = (run, experiment.config)
    return found


def read_index(path: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the labels and seeds of a comparison; StorageError if the file is missing or damaged."""
    text = text_of(path)
    if text is None:
        raise StorageError(f"Expected a comparison with {path}; there is no such file.")
    try:
        entry = json.loads(text)
        labels, seeds = tuple(map(str, entry["methods"])), tuple(map(int, entry["seeds"]))
        if not seeds or any("/" in label or "\\" in label for label in labels):  # runs are in folders right here
            raise ValueError(labels)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StorageError(f"Expected a comparison's methods and seeds as JSON in {path}; got another file.") from error
    return labels, seeds


def read_environment(path: Path, key: str | None = None) -> dict[str, str]:
    """Read versions, machine and command from a JSON file, or its entry ``key``; StorageError if it is damaged."""
    try:
        entry = json.loads(text_of(path) or "{}")
        found = flat({**(entry if key is None else entry.get(key, {}))})
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise StorageError(f"Expected a JSON object in {path}; {error}. Delete it to report without it.") from error
    for name in [name for name in found if name.endswith("command")]:  # to be typed again
        found[name] = quoted(*map(str, found[name])) if isinstance(found[name], list) else None
    return {name: str(value) for name, value in found.items() if value is not None}


def plain_settings(config: str | None) -> dict[str, Any]:
    """Return the settings in a ``config.yaml``; empty if it is no YAML of settings, for a report does without them."""
    with suppress(ConfigError):
        return dict(from_yaml(config or "", "config.yaml"))
    return {}


def write_accuracy_matrix(records: Iterable[Record], path: Path) -> Path:
    """Write the accuracy matrix of EvaluationRecords for spreadsheets: fractions, empty where nothing was measured.

    The columns are ``after_training_task, test_on_task_1, ..., test_on_task_T``, numbered in the order of learning.
    """
    matrix = Run(0, tuple(records)).accuracy_matrix
    columns = ["after_training_task", *(f"test_on_task_{j + 1}" for j in range(len(matrix)))]
    rows = [[i + 1, *(float(a) if a == a else None for a in row)] for i, row in enumerate(matrix)]
    return write_text(Path(path), to_csv(columns, rows))


def text_of(path: Path) -> str | None:
    """Return what a file holds; None if there is none. StorageError if it is no text."""
    if not os.path.isfile(path):  # a pipe would never end
        return None
    try:
        return read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"Expected text in {path}; {error}. Delete the file to report without it.") from error
