"""One seed of an experiment from its files, its quantities in one row, and statistics over seeds.

Accuracies are fractions in [0, 1]. ``a[i][j]`` is the test accuracy on task j after training task i, from 0, T tasks.

The forgetting ratio of LASEM's paper is "final accuracy divided by peak accuracy"; the authors' code does not compute
it, so both ways of averaging over tasks are here, by name. Both include the last task, whose ratio is not 1 by
definition: it compares the weights that were kept with those of the best epoch. Higher is better; above 1, later tasks
helped earlier ones.

The significance of a difference between methods is from pairs: the same seed and task, learned by both.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lasem.errors import ShapeError, StorageError
from lasem.records import EpochRecord, EvaluationRecord, Record, TaskRecord, TimingRecord, of_kind, read_records

Matrix = NDArray[np.float64]
MatrixLike = Matrix | Sequence[Sequence[float]]

_MAX_EXACT = 14
_NUM_FLIPS = 20_000


def as_matrix(accuracies: MatrixLike) -> Matrix:
    """Bring accuracies into the square matrix ``a``, shape ``(T, T)``, with NaN where nothing was measured.

    ShapeError if row i has neither ``i + 1`` entries, up to the diagonal, nor ``T``.
    """
    num_tasks = len(accuracies)
    matrix = np.full((num_tasks, num_tasks), np.nan)
    for i, row in enumerate(accuracies):
        if len(row) not in (i + 1, num_tasks):
            raise ShapeError(
                f"Expected an accuracy matrix of {num_tasks} tasks, whose row {i} has {i + 1} entries "
                f"(up to the diagonal) or {num_tasks}; got {len(row)}. "
                "Give one row for each task learned, in the order of learning."
            )
        matrix[i, : len(row)] = row
    return matrix


def mean(values: Sequence[float] | Matrix) -> float:
    """Mean of the values that were measured (are not NaN); NaN, without a warning, if there are none."""
    array = np.asarray(values, dtype=np.float64)
    measured = array[~np.isnan(array)]
    return float(measured.mean()) if measured.size else float("nan")


def mean_peak_accuracy(peak: Sequence[float] | Matrix) -> float:
    """Mean over all tasks, the last included, of the peak per-task accuracy.

    The peak of a task is its test accuracy at the best epoch of its own training (``TaskRecord.peak_accuracy``):
    neither a maximum over test accuracies nor anything measured after later tasks. Which epoch is the best one, the
    validation images say; in the authors' code (``best_test_error_each_task``) the one of highest validation accuracy,
    here with ``TrainingConfig.tolerance`` 0. Source: Lee, Behpour, Eaton, ICML 2021.
    """
    return mean(peak)


def mean_final_accuracy(accuracies: MatrixLike) -> float:
    """``1/T sum_j a[T-1][j]``, the last task included: "average accuracy" in GEM (Lopez-Paz, Ranzato, NeurIPS 2017)."""
    matrix = as_matrix(accuracies)
    return mean(matrix[-1] if len(matrix) else [])


def average_incremental_accuracy(accuracies: MatrixLike) -> float:
    """``1/T sum_i (1/(i+1) sum_{j<=i} a[i][j])``, the last task included (iCaRL, Rebuffi et al., CVPR 2017).

    After every task the mean accuracy on the tasks seen so far; then the mean of these means.
    """
    matrix = as_matrix(accuracies)
    return mean([mean(row[: i + 1]) for i, row in enumerate(matrix)])


def forgetting_chaudhry(accuracies: MatrixLike) -> float:
    """``1/(T-1) sum_{j<T-1} (max_{j<=k<T-1} a[k][j] - a[T-1][j])``; negative if the last row is the best.

    Lower is better. The last task is left out, for it had no time to be forgotten; NaN for one task. Source: Chaudhry
    et al., Riemannian Walk, ECCV 2018; the same number in FACIL and continuum.
    """
    matrix = as_matrix(accuracies)
    highest = [np.fmax.reduce(matrix[j:-1, j]) for j in range(len(matrix) - 1)]  # NaN only if none was measured
    return mean(np.array(highest) - matrix[-1, :-1] if highest else [])


def forgetting_ratios(peak: Sequence[float] | Matrix, final: Sequence[float] | Matrix) -> Matrix:
    """``final[j] / peak[j]`` of every task, shape ``(T,)``; NaN where the peak is 0 and the ratio has no meaning.

    ShapeError if there is not one final accuracy for each peak.
    """
    peaks, finals = _pairs(peak, final)
    ratios = np.full(peaks.shape, np.nan)
    np.divide(finals, peaks, out=ratios, where=peaks != 0)
    return ratios


def mean_of_forgetting_ratios(peak: Sequence[float] | Matrix, final: Sequence[float] | Matrix) -> float:
    """``1/T sum_j final[j] / peak[j]``: every task counts the same. This is the one that our tables show.

    Tasks without a ratio (peak 0) are left out of the mean.
    """
    return mean(forgetting_ratios(peak, final))


def forgetting_ratio_of_means(peak: Sequence[float] | Matrix, final: Sequence[float] | Matrix) -> float:
    """``sum_j final[j] / sum_j peak[j]``: tasks count by their peak accuracy, so one near chance cannot dominate.

    NaN if every peak is 0. Tasks for which either was not measured are left out.
    """
    peaks, finals = _pairs(peak, final)
    measured = ~np.isnan(peaks) & ~np.isnan(finals)
    total = float(peaks[measured].sum())
    return float(finals[measured].sum()) / total if total else float("nan")


def _pairs(peak: Sequence[float] | Matrix, final: Sequence[float] | Matrix) -> tuple[Matrix, Matrix]:
    peaks, finals = np.asarray(peak, dtype=np.float64), np.asarray(final, dtype=np.float64)
    if peaks.shape != finals.shape or peaks.ndim != 1:
        raise ShapeError(
            f"Expected one peak and one final accuracy for each task; got shapes {peaks.shape} and {finals.shape}."
        )
    return peaks, finals


def backward_transfer(accuracies: MatrixLike) -> float:
    """``1/(T-1) sum_{j<T-1} (a[T-1][j] - a[j][j])``, the last task left out; NaN for one task. Higher is better.

    Source: GEM's paper (Lopez-Paz, Ranzato, NeurIPS 2017); the same in Mammoth, Renate and CLArena.
    """
    matrix = as_matrix(accuracies)
    return mean((matrix[-1] - np.diagonal(matrix))[:-1] if len(matrix) else [])


def fraction_layers_shared(configurations: Sequence[str]) -> float:
    """``mean_t (layers of task t that transfer) / (its layers)``, every task given included.

    In [0, 1]; NaN if no task has layers. Leave the first task out if it should not count: nothing precedes it.
    """
    return mean([c.count("T") / len(c) for c in configurations if c])


def transfer_frequencies(configurations: Sequence[str]) -> tuple[float, ...]:
    """For each layer the fraction of the given tasks that transfer it, in [0, 1] (the talk's fifth figure)."""
    num_layers = max((len(c) for c in configurations), default=0)
    return tuple(
        mean([float(c[layer] == "T") for c in configurations if layer < len(c)]) for layer in range(num_layers)
    )


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
    """Read the records, and the timings if there are any, of a seed's folder; StorageError if they are damaged."""
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
    """Read every seed under ``RUN/seeds`` that has records, by number; StorageError if none has, or one is damaged."""
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
