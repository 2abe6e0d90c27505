"""Measures of a sequence of tasks: how well they are solved and remembered, and which layers they share.

Accuracies are fractions in [0, 1]. ``a[i][j]`` is the test accuracy on task j after training task i, from 0, T tasks.

The forgetting ratio of LASEM's paper is "final accuracy divided by peak accuracy"; the authors' code does not compute
it, so both ways of averaging over tasks are here, by name. Both include the last task, whose ratio is not 1 by
definition: it compares the weights that were kept with those of the best epoch. Higher is better; above 1, later tasks
helped earlier ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lasem.errors import ShapeError

Matrix = NDArray[np.float64]
MatrixLike = Matrix | Sequence[Sequence[float]]


def as_matrix(accuracies: MatrixLike) -> Matrix:
    """Bring accuracies into the square matrix ``a``, shape ``(T, T)``, with NaN where nothing was measured.

    Raises:
        ShapeError: if row i has neither ``i + 1`` entries, up to the diagonal, nor ``T``.
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

    Raises:
        ShapeError: if there is not one final accuracy for each peak.
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
