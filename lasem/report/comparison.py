"""A comparison from its files: a row for each method, mean and deviation over seeds.

``comparison.json`` in the folder says which runs belong to it; everything else is read from the runs themselves, each
in ``METHOD-SEED`` next to it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lasem.errors import StorageError
from lasem.metrics import PairedDifference, Run, Statistic, aggregate, paired_difference, statistic, summarise
from lasem.records import TaskRecord
from lasem.report.experiment import Experiment, flat_settings, load_experiment, plain_settings, read_environment
from lasem.report.numbers import method_name

INDEX = "comparison.json"
"""A folder that holds this file holds a comparison."""

SeedRuns = dict[int, tuple[Run, str | None]]
"""By seed, each with its settings as YAML."""

_OF_A_RUN = ("preset", "seeds")
"""Settings that say nothing of a method."""


@dataclass(frozen=True, kw_only=True)
class MethodRow:
    """One method over its finished seeds."""

    label: str
    values: dict[str, Statistic]
    """By the names of a Summary's quantities, and ``parameters_per_task``; empty if no seed is finished."""
    seeds: dict[int, str]
    """The finished seeds, and where each one's folder is, from the comparison's."""
    unfinished: tuple[int, ...]
    settings: dict[str, Any]
    """What sets the method apart, by setting (``search.name``)."""
    to_best: PairedDifference | None = None
    """Final accuracies minus those of the method that answers best at the end; None for that one itself."""

    @property
    def name(self) -> str:
        """The label as a person reads it."""
        return method_name(self.label)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Methods side by side on one stream."""

    name: str
    rows: tuple[MethodRow, ...]
    seeds: tuple[int, ...]
    num_tasks: int
    common: str
    """The settings that all methods agree on, as YAML."""
    environment: dict[str, str]

    @property
    def compared(self) -> tuple[MethodRow, ...]:
        """The methods of which at least one seed is finished."""
        return tuple(row for row in self.rows if row.seeds)

    @property
    def finished(self) -> bool:
        """Whether every seed of every method is there."""
        return not any(row.unfinished for row in self.rows)


def parameters_per_task(tasks: Sequence[TaskRecord]) -> float:
    """``(total after the last task - total after the first) / (T - 1)``: what one more task makes the model grow by.

    Whatever a task adds counts, its own and what it shares; NaN for one task.
    """
    if len(tasks) < 2:
        return float("nan")
    return (tasks[-1].parameters_total - tasks[0].parameters_total) / (len(tasks) - 1)


def is_finished(experiment: Experiment, run: Run, folder: Path) -> bool:
    """Whether a run of one seed has come to its end: all tasks, and nothing left to go on from."""
    return experiment.progress(run).finished and not (folder / "seeds" / str(run.seed) / "checkpoint").exists()


def finished_runs(directory: Path, labels: Sequence[str], seeds: Sequence[int]) -> dict[str, SeedRuns]:
    """Read the finished runs of some methods, by label.

    Raises:
        StorageError: if a file is damaged.
    """
    found: dict[str, SeedRuns] = {label: {} for label in labels}
    for label in labels:
        for seed in seeds:
            folder = directory / f"{label}-{seed}"
            if not (folder / "seeds" / str(seed) / "records.jsonl").exists():
                continue
            experiment = load_experiment(folder)
            for run in experiment.runs:
                if run.seed == seed and is_finished(experiment, run, folder):
                    found[label][seed] = (run, experiment.config)
    return found


def load_comparison(directory: Path) -> Comparison:
    """Read the folder of a comparison, finished or not.

    Raises:
        StorageError: if it is none, or a file in it is damaged.
    """
    directory = Path(directory)
    labels, seeds = read_index(directory / INDEX)
    found = finished_runs(directory, labels, seeds)
    common, own = _split_settings({label: next(iter(of.values()))[1] for label, of in found.items() if of})
    values = {label: _values([run for run, _ in of.values()]) for label, of in found.items()}
    best = max((label for label in labels if values[label]), key=lambda x: values[x]["final_accuracy"].mean, default="")
    rows = [
        MethodRow(
            label=label,
            values=values[label],
            seeds={seed: f"{label}-{seed}" for seed in found[label]},
            unfinished=tuple(seed for seed in seeds if seed not in found[label]),
            settings=own.get(label, {}),
            to_best=_to_best(found[label], found[best]) if values[label] and label != best else None,
        )
        for label in labels
    ]
    return Comparison(
        name=directory.resolve().name,
        rows=tuple(rows),
        seeds=seeds,
        num_tasks=max((len(run.tasks) for of in found.values() for run, _ in of.values()), default=0),
        common=common,
        environment=read_environment(directory / INDEX, "environment"),
    )


def read_index(path: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The labels and seeds of a comparison.

    Raises:
        StorageError: if the file is missing or damaged.
    """
    try:
        entry = json.loads(path.read_bytes())
        return tuple(map(str, entry["methods"])), tuple(map(int, entry["seeds"]))
    except OSError as error:
        raise StorageError(f"Expected a comparison with {path}; {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"Expected a comparison's methods and seeds as JSON in {path}; got another file.") from error


def _to_best(own: SeedRuns, best: SeedRuns) -> PairedDifference:
    return paired_difference([run for run, _ in own.values()], [run for run, _ in best.values()], "final_accuracies")


def _values(runs: Sequence[Run]) -> dict[str, Statistic]:
    if not runs:
        return {}
    grown = statistic([parameters_per_task(run.evaluated_tasks) for run in runs])
    return {**aggregate([summarise(run) for run in runs]), "parameters_per_task": grown}


def _split_settings(configs: dict[str, str | None]) -> tuple[str, dict[str, dict[str, Any]]]:
    """What all agree on, as YAML, and what each has for itself."""
    plain = {label: plain_settings(config) for label, config in configs.items()}
    flat = {
        label: flat_settings({part: value for part, value in parts.items() if part not in _OF_A_RUN})
        for label, parts in plain.items()
    }
    same = {
        name: value
        for name, value in next(iter(flat.values()), {}).items()
        if not name.startswith(("method.", "sharing.", "search."))
        and all(name in of and of[name] == value for of in flat.values())
    }
    shared: dict[str, Any] = {}
    for name, value in same.items():
        part, _, field = name.partition(".")
        if field:
            shared.setdefault(part, {})[field] = value
        else:
            shared[part] = value
    own = {label: {n: v for n, v in of.items() if n not in same} for label, of in flat.items()}
    return yaml.safe_dump(shared, sort_keys=False, allow_unicode=True) if shared else "", own
