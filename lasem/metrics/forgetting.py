"""Forgetting as differences of accuracy, in the variants that other tools report under the one name.

Accuracies are fractions in [0, 1], so 0.10 is ten points lost. ``a[i][j]`` is the test accuracy on task j after
training task i, from 0, T tasks. Lower is better. The last task is left out everywhere, for it had no time to be
forgotten; with one task there is nothing to average and the answer is NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lasem.metrics.matrix import Matrix, MatrixLike, as_matrix, mean


def forgetting_chaudhry(accuracies: MatrixLike) -> float:
    """``1/(T-1) sum_{j<T-1} (max_{j<=k<T-1} a[k][j] - a[T-1][j])``; negative if the last row is the best.

    Source: Chaudhry et al., Riemannian Walk, ECCV 2018; the same number in FACIL and continuum.
    """
    return _best_minus_final(accuracies, lambda matrix, j: matrix[j:-1, j])


def forgetting_renate(accuracies: MatrixLike) -> float:
    """``1/(T-1) sum_{j<T-1} (max_{k<T-1} a[k][j] - a[T-1][j])``: rows before task j was learned count too.

    Source: Renate, ``evaluation/metrics``. Equals ``forgetting_chaudhry`` for a lower-triangular matrix.
    """
    return _best_minus_final(accuracies, lambda matrix, j: matrix[:-1, j])


def forgetting_max_over_all(accuracies: MatrixLike) -> float:
    """``1/(T-1) sum_{j<T-1} (max_k a[k][j] - a[T-1][j])`` over all rows, the final one too: never negative.

    Source: Mammoth, ``utils/metrics.py``; PyCIL and PILOT, ``trainer.py``.
    """
    return _best_minus_final(accuracies, lambda matrix, j: matrix[:, j])


def forgetting_first_last(accuracies: MatrixLike) -> float:
    """``1/(T-1) sum_{j<T-1} (a[j][j] - a[T-1][j])``: just learned minus final, the negative of backward transfer.

    Source: Avalanche, ``forgetting_bwt.py``.
    """
    return _best_minus_final(accuracies, lambda matrix, j: matrix[j : j + 1, j])


def forgetting_libcontinual(accuracies: MatrixLike) -> float:
    """``1/(T-1) sum_{j<T-2} (a[j][j] - a[T-1][j])``: skips the task before the last, yet divides by ``T-1``.

    Here to compare with numbers from LibContinual (``core/utils/utils.py``), not to be recommended. NaN for one task.
    """
    matrix = as_matrix(accuracies)
    num_tasks = len(matrix)
    if num_tasks < 2:
        return float("nan")
    return float(sum(matrix[j, j] - matrix[-1, j] for j in range(num_tasks - 2))) / (num_tasks - 1)


def _best_minus_final(accuracies: MatrixLike, rows: Callable[[Matrix, int], Matrix]) -> float:
    matrix = as_matrix(accuracies)
    losses = []
    for j in range(len(matrix) - 1):
        candidates = rows(matrix, j)
        measured = candidates[~np.isnan(candidates)]
        losses.append(float(measured.max()) - matrix[-1, j] if measured.size else float("nan"))
    return mean(losses)
