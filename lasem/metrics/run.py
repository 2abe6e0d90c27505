"""One seed of an experiment from its files, its quantities in one row, and statistics over seeds.

The significance of a difference between methods is from pairs: the same seed and task, learned by both.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np

from lasem.errors import StorageError
from lasem.metrics.measures import (
    Matrix,
    average_incremental_accuracy,
    backward_transfer,
    forgetting_chaudhry,
    forgetting_ratio_of_means,
    forgetting_ratios,
    fraction_layers_shared,
    mean_final_accuracy,
    mean_of_forgetting_ratios,
    mean_peak_accuracy,
)
from lasem.records import EpochRecord, EvaluationRecord, Record, TaskRecord, TimingRecord, of_kind, read_records

_MAX_EXACT = 14
_NUM_FLIPS = 20_000


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
    if not folder.name.isdecimal():
        raise StorageError(
            f"Expected a seed's folder, named by its number as in RUN/seeds/0; got {folder}. "
            "Use load_runs for the folder of a whole run."
        )
    timings = folder / "timings.jsonl"
    found = of_kind(read_records(timings) if timings.exists() else [], TimingRecord)
    timed = {(record.task, record.epoch): record for record in found}  # an epoch repeated after a restart counts once
    return Run(int(folder.name), tuple(read_records(folder / "records.jsonl")), tuple(timed.values()))


def load_runs(run_dir: Path) -> tuple[Run, ...]:
    """Read every seed under ``RUN/seeds``, by number; seeds that have no records yet are passed over.

    Raises:
        StorageError: if no seed has records, or some are damaged.
    """
    folders = [f for f in Path(run_dir).glob("seeds/*") if f.name.isdecimal() and (f / "records.jsonl").exists()]
    if not folders:
        raise StorageError(
            f"Expected the folder of a run, holding seeds/0/records.jsonl or more seeds; found none in {run_dir}. "
            "Pass the folder that a run wrote to."
        )
    return tuple(load_run(folder) for folder in sorted(folders, key=lambda f: int(f.name)))


def seconds_training(timings: Iterable[TimingRecord], task: str | None = None) -> float:
    """Seconds of optimisation steps, evaluation not included, of one task or of all; NaN if nothing was timed.

    The authors' ``training_time`` is another quantity: it includes evaluating every task on three splits every epoch.
    """
    values = [timing.seconds_training for timing in timings if task in (None, timing.task)]
    return sum(values) if values else float("nan")


def seconds_evaluating(timings: Iterable[TimingRecord], task: str | None = None) -> float:
    """Seconds spent on validation and test accuracies, of one task or of all; NaN if nothing was timed."""
    values = [timing.seconds_evaluating for timing in timings if task in (None, timing.task)]
    return sum(values) if values else float("nan")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One seed. Accuracies are fractions in [0, 1]; a quantity without a value is NaN."""

    seed: int
    num_tasks: int
    """Tasks learned and evaluated; every quantity below is over these."""
    peak_accuracy: float
    """``mean_peak_accuracy``: the paper's first number."""
    final_accuracy: float
    average_incremental_accuracy: float
    forgetting_ratio: float
    """``mean_of_forgetting_ratios``, the last task included."""
    forgetting_ratio_of_means: float
    smallest_forgetting_ratio: float
    """Of the task that lost most; NaN if no task has a ratio."""
    forgetting: float
    """``forgetting_chaudhry``."""
    backward_transfer: float
    fraction_layers_shared: float
    """Over all tasks but the first, which nothing precedes."""
    parameters_total: float
    """Everything the model holds after the last task, the shared part counted once; 0 before the first task."""
    parameters_shared: float
    """The shared knowledge after the last task."""
    parameters_added: float
    """The sum of what each task has for itself, heads included."""
    parameters_of_separate_models: float
    """``T * total after the first task``: what as many models would hold, each the size of this one with one task.
    Exact if the heads are equally large. After its first task a model with hard sharing is one plain network."""
    parameters_per_task: float
    """``(total after the last task - total after the first) / (T - 1)``: what one more task makes the model grow by."""
    seconds_training: float
    """Of everything timed, a task not learned to its end included; evaluation is apart."""
    seconds_evaluating: float


QUANTITIES = tuple(f.name for f in fields(Summary) if f.name not in ("seed", "num_tasks"))
"""The names of a Summary's measured quantities: the keys of ``aggregate``."""


@dataclass(frozen=True)
class Statistic:
    """Mean and sample standard deviation (divided by n-1) over the n seeds that have the value."""

    mean: float
    deviation: float
    """NaN for fewer than two seeds."""
    num_seeds: int


def summarise(run: Run) -> Summary:
    """Compute the quantities of one seed from its records; of an unfinished run, over the tasks learned so far."""
    tasks, matrix = run.evaluated_tasks, run.accuracy_matrix
    totals = [task.parameters_total for task in tasks]
    ratios = forgetting_ratios(run.peak_accuracies, run.final_accuracies)
    return Summary(
        seed=run.seed,
        num_tasks=len(tasks),
        peak_accuracy=mean_peak_accuracy(run.peak_accuracies),
        final_accuracy=mean_final_accuracy(matrix),
        average_incremental_accuracy=average_incremental_accuracy(matrix),
        forgetting_ratio=mean_of_forgetting_ratios(run.peak_accuracies, run.final_accuracies),
        forgetting_ratio_of_means=forgetting_ratio_of_means(run.peak_accuracies, run.final_accuracies),
        smallest_forgetting_ratio=min(ratios[~np.isnan(ratios)], default=float("nan")),
        forgetting=forgetting_chaudhry(matrix),
        backward_transfer=backward_transfer(matrix),
        fraction_layers_shared=fraction_layers_shared([task.configuration for task in tasks[1:]]),
        parameters_total=totals[-1] if totals else 0,
        parameters_shared=tasks[-1].parameters_shared if tasks else 0,
        parameters_added=sum(task.parameters_added for task in tasks),
        parameters_of_separate_models=len(tasks) * totals[0] if totals else 0,
        parameters_per_task=(totals[-1] - totals[0]) / (len(tasks) - 1) if len(tasks) > 1 else float("nan"),
        seconds_training=seconds_training(run.timings),
        seconds_evaluating=seconds_evaluating(run.timings),
    )


def statistic(values: Sequence[float]) -> Statistic:
    """Mean and sample standard deviation of the values that are not NaN."""
    measured = [value for value in values if value == value]
    return Statistic(
        mean=statistics.fmean(measured) if measured else float("nan"),
        deviation=statistics.stdev(measured) if len(measured) > 1 and np.isfinite(measured).all() else float("nan"),
        num_seeds=len(measured),
    )


def aggregate(summaries: Sequence[Summary]) -> dict[str, Statistic]:
    """The paper's aggregates: for each quantity the mean over seeds of the seeds' means, and their deviation.

    Give it finished runs of the same stream: a seed with fewer tasks is another, easier problem.
    """
    return {name: statistic([getattr(summary, name) for summary in summaries]) for name in QUANTITIES}


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """How far the first method is above the second."""

    mean: float
    """Of the differences; NaN without a pair."""
    p_value: float
    """Two-sided, of a sign-flip test over all pairs: how probable so large a mean is if neither is better. Tasks of one
    seed share what was learned before, so that it is rather too small; NaN without a pair."""
    num_pairs: int
    num_seeds: int
    num_seeds_above: int
    """Seeds in which the mean over tasks is above zero: to be read next to the p-value."""


def paired_difference(
    first: Sequence[Run], second: Sequence[Run], quantity: str = "peak_accuracies"
) -> PairedDifference:
    """Compare two methods task by task over the seeds that both have.

    Args:
        first: runs of one stream, one for each seed.
        second: the other method's.
        quantity: a Run's property with a number for each task: ``peak_accuracies`` or ``final_accuracies``.
    """
    others = {run.seed: run for run in second}
    by_seed = []
    for run in first:
        if run.seed in others:
            mine, theirs = getattr(run, quantity), getattr(others[run.seed], quantity)
            num = min(len(mine), len(theirs))
            by_seed.append(np.asarray(mine[:num]) - np.asarray(theirs[:num]))
    return difference_over_seeds(by_seed)


def difference_over_seeds(by_seed: Sequence[Matrix]) -> PairedDifference:
    """Sum up the differences between two methods, an array for each seed with a number for each task."""
    differences = np.concatenate(by_seed) if by_seed else np.empty(0)
    return PairedDifference(
        mean=float(differences.mean()) if len(differences) else float("nan"),
        p_value=sign_flip_p_value(differences),
        num_pairs=len(differences),
        num_seeds=len(by_seed),
        num_seeds_above=sum(bool(of_seed.mean() > 0) for of_seed in by_seed if len(of_seed)),
    )


def sign_flip_p_value(differences: Sequence[float] | Matrix) -> float:
    """Share of all choices of signs whose mean is at least as far from zero, the observed signs among them.

    All choices up to 14 differences, else 20,000 drawn ones, the same every time. NaN without a difference.
    """
    values = np.asarray(differences, dtype=np.float64)
    if not len(values):
        return float("nan")
    observed = abs(values.sum()) * (1 - 1e-12)  # sums in another order differ in their last bits
    if len(values) <= _MAX_EXACT:
        signs = np.array(list(product((1.0, -1.0), repeat=len(values))))
        return float((np.abs(signs @ values) >= observed).mean())
    generator = np.random.default_rng(0)
    as_far = 1
    for _ in range(_NUM_FLIPS // 1000):
        signs = generator.choice((1.0, -1.0), (1000, len(values)))
        as_far += int((np.abs(signs @ values) >= observed).sum())
    return as_far / (_NUM_FLIPS + 1)
