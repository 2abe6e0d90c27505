"""The accuracy matrix, and how well the tasks are solved: peak, final and average incremental accuracy.

Accuracies are fractions in [0, 1]. ``a[i][j]`` is the test accuracy on task j after training task i, from 0, T tasks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lasem.errors import ShapeError

Matrix = NDArray[np.float64]
MatrixLike = Matrix | Sequence[Sequence[float]]


def as_matrix(accuracies: MatrixLike) -> Matrix:
    """Bring accuracies into a square matrix of floats.

    Args:
        accuracies: ``accuracies[i][j]`` is the test accuracy in [0, 1] on task j after training task i, from 0. Rows
            may end at the diagonal (what lies beyond becomes NaN) or be full, with NaN where nothing was measured.
    Returns:
        The matrix ``a``, shape ``(T, T)``.
    Raises:
        ShapeError: if row i has neither ``i + 1`` nor ``T`` entries.
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
