"""How well the tasks are solved: peak, just learned, final and average incremental accuracy.

Accuracies are fractions in [0, 1]. ``a[i][j]`` is the test accuracy on task j after training task i, from 0, T tasks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lasem.metrics.matrix import Matrix, MatrixLike, as_matrix, mean


def mean_peak_accuracy(peak: Sequence[float] | Matrix) -> float:
    """Mean over all tasks, the last included, of the peak per-task accuracy.

    The peak of a task is its test accuracy at the best epoch of its own training (``TaskRecord.peak_accuracy``):
    neither a maximum over test accuracies nor anything measured after later tasks. Which epoch is the best one, the
    validation images say; in the authors' code (``best_test_error_each_task``) the one of highest validation accuracy,
    here with ``TrainingConfig.tolerance`` 0. Source: Lee, Behpour, Eaton, ICML 2021.
    """
    return mean(peak)


def learned_accuracies(accuracies: MatrixLike) -> Matrix:
    """``a[j][j]``: the accuracy of every task just after it was learned, shape ``(T,)``, the last included."""
    return np.diagonal(as_matrix(accuracies)).copy()


def final_accuracies(accuracies: MatrixLike) -> Matrix:
    """``a[T-1][j]``: the accuracy of every task after the last one, shape ``(T,)``, the last included."""
    matrix = as_matrix(accuracies)
    return matrix[-1].copy() if len(matrix) else np.empty(0)


def mean_final_accuracy(accuracies: MatrixLike) -> float:
    """``1/T sum_j a[T-1][j]``, the last task included: "average accuracy" in GEM (Lopez-Paz, Ranzato, NeurIPS 2017)."""
    return mean(final_accuracies(accuracies))


def average_incremental_accuracy(accuracies: MatrixLike) -> float:
    """``1/T sum_i (1/(i+1) sum_{j<=i} a[i][j])``, the last task included (iCaRL, Rebuffi et al., CVPR 2017).

    After every task the mean accuracy on the tasks seen so far; then the mean of these means.
    """
    matrix = as_matrix(accuracies)
    return mean([mean(row[: i + 1]) for i, row in enumerate(matrix)])
