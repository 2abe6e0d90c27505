"""How much tasks help each other: backward, forward, and against learning each task alone.

Accuracies are fractions in [0, 1], so 0.10 is ten points won. ``a[i][j]`` is the test accuracy on task j after
training task i, from 0, T tasks; ``b[j]`` before any training; ``s[j]`` of a network that learned task j alone.
Higher is better.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lasem.metrics.matrix import Matrix, MatrixLike, as_accuracies, as_matrix, mean


def backward_transfer(accuracies: MatrixLike) -> float:
    """``1/(T-1) sum_{j<T-1} (a[T-1][j] - a[j][j])``, the last task left out; NaN for one task.

    Source: GEM's paper (Lopez-Paz, Ranzato, NeurIPS 2017); the same in Mammoth, Renate and CLArena, and the negative of
    ``forgetting_first_last``.
    """
    return mean(_final_minus_learned(accuracies)[:-1])


def backward_transfer_gem_code(accuracies: MatrixLike) -> float:
    """``1/T sum_j (a[T-1][j] - a[j][j])``: the last task, always 0, is included, so it is smaller than the paper's.

    Source: GEM's code, ``metrics/metrics.py``.
    """
    return mean(_final_minus_learned(accuracies))


def backward_transfer_pairs(accuracies: MatrixLike) -> float:
    """``2/(T(T-1)) sum_{i>j} (a[i][j] - a[j][j])``: after every later task, not only the last; NaN for one task.

    Source: Díaz-Rodríguez et al., Don't forget, there is more than forgetting, 2018; continuum, ``metrics/metrics.py``.
    """
    matrix = as_matrix(accuracies)
    return mean([matrix[i, j] - matrix[j, j] for i in range(len(matrix)) for j in range(i)])


def backward_transfer_libcontinual(accuracies: MatrixLike) -> float:
    """``2/(T(T-1)) sum_{i>j+1} (a[i][j] - a[j][j])``: skips ``j = i-1``, yet divides by the number of all pairs.

    Here to compare with numbers from LibContinual (``core/utils/utils.py``), not to be recommended. NaN for one task.
    """
    matrix = as_matrix(accuracies)
    num_pairs = len(matrix) * (len(matrix) - 1) // 2
    gains = [matrix[i, j] - matrix[j, j] for i in range(len(matrix)) for j in range(i - 1)]
    return float(sum(gains)) / num_pairs if num_pairs else float("nan")


def forward_transfer(accuracies: MatrixLike, untrained: Sequence[float] | Matrix) -> float:
    """``1/(T-1) sum_{j>=1} (a[j-1][j] - b[j])``: on a task not yet learned; the first left out, NaN for one task.

    Needs a head before the task is learned: with a head for each task the entries above the diagonal are NaN, and so is
    this. Use ``transfer_vs_single_task`` then. Source: GEM's paper.

    Args:
        accuracies: the full matrix.
        untrained: ``b``, one for each task.
    """
    return mean(_zero_shot_gains(accuracies, untrained))


def forward_transfer_gem_code(accuracies: MatrixLike, untrained: Sequence[float] | Matrix) -> float:
    """``1/T sum_{j>=1} (a[j-1][j] - b[j])``: the first task counts as 0, so it is smaller than the paper's.

    NaN for one task. Source: GEM's code, ``metrics/metrics.py``.
    """
    gains = _zero_shot_gains(accuracies, untrained)
    return mean(gains) * len(gains) / (len(gains) + 1)


def forward_transfer_without_baseline(accuracies: MatrixLike) -> float:
    """``1/(T-1) sum_{j>=1} a[j-1][j]``: the accuracy before any training is not subtracted; NaN for one task.

    Source: continuum, ``metrics/metrics.py``.
    """
    return mean(np.diagonal(as_matrix(accuracies), offset=1))


def transfer_vs_single_task(learned: Sequence[float] | Matrix, single_task: Sequence[float] | Matrix) -> float:
    """``1/T sum_j (p[j] - s[j])``, first and last task included: what the tasks before brought to learning each one.

    The forward transfer that fits networks with a head for each task (CLArena, CTrL).

    Args:
        learned: ``p``, accuracy when each task was learned: peak per-task accuracies, or the matrix's diagonal.
        single_task: ``s``, measured in the same way by networks that learned one task each.
    """
    learned_alone = as_accuracies("single-task accuracies", single_task, len(learned))
    return mean(as_accuracies("accuracies", learned, len(learned)) - learned_alone)


def _final_minus_learned(accuracies: MatrixLike) -> Matrix:
    matrix = as_matrix(accuracies)
    return matrix[-1] - np.diagonal(matrix) if len(matrix) else np.empty(0)


def _zero_shot_gains(accuracies: MatrixLike, untrained: Sequence[float] | Matrix) -> Matrix:
    matrix = as_matrix(accuracies)
    before = as_accuracies("accuracies before any training", untrained, len(matrix))
    return np.asarray(np.diagonal(matrix, offset=1) - before[1:]) if len(matrix) else np.empty(0)
