"""Forgetting: the accuracy that tasks lose while later ones are learned, and the ratio of LASEM's paper.

The paper reports "final accuracy divided by peak accuracy"; the authors' code does not compute it, so both ways of
averaging over tasks are here, by name. Both include the last task, whose ratio is not 1 by definition: it compares the
weights that were kept with those of the best epoch. Higher is better; above 1, later tasks helped earlier ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lasem.errors import ShapeError
from lasem.metrics.accuracy import Matrix, MatrixLike, as_matrix, mean


def forgetting_chaudhry(accuracies: MatrixLike) -> float:
    """``1/(T-1) sum_{j<T-1} (max_{j<=k<T-1} a[k][j] - a[T-1][j])``; negative if the last row is the best.

    Lower is better. The last task is left out, for it had no time to be forgotten; NaN for one task. Source: Chaudhry
    et al., Riemannian Walk, ECCV 2018; the same number in FACIL and continuum.
    """
    matrix = as_matrix(accuracies)
    losses = []
    for j in range(len(matrix) - 1):
        before = matrix[j:-1, j]
        measured = before[~np.isnan(before)]
        losses.append(float(measured.max()) - matrix[-1, j] if measured.size else float("nan"))
    return mean(losses)


def forgetting_ratios(peak: Sequence[float] | Matrix, final: Sequence[float] | Matrix) -> Matrix:
    """``final[j] / peak[j]`` of every task, shape ``(T,)``; NaN where the peak is 0 and the ratio has no meaning.

    Raises:
        ShapeError: if there is not one final accuracy for each peak.
    """
    peaks, finals = np.asarray(peak, dtype=np.float64), np.asarray(final, dtype=np.float64)
    if peaks.shape != finals.shape or peaks.ndim != 1:
        raise ShapeError(
            f"Expected one peak and one final accuracy for each task; got shapes {peaks.shape} and {finals.shape}."
        )
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
    peaks, finals = np.asarray(peak, dtype=np.float64), np.asarray(final, dtype=np.float64)
    forgetting_ratios(peaks, finals)  # for its check of the shapes
    measured = ~np.isnan(peaks) & ~np.isnan(finals)
    total = float(peaks[measured].sum())
    return float(finals[measured].sum()) / total if total else float("nan")
