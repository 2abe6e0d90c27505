"""The forgetting ratio of LASEM's paper: what is left at the end of what each task reached, 1 if nothing is forgotten.

The paper reports "final accuracy divided by peak accuracy"; the authors' code does not compute it, so both ways of
averaging over tasks are here, by name. Both include the last task, whose ratio is not 1 by definition: it compares the
weights that were kept with those of the best epoch. Higher is better; above 1, later tasks helped earlier ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lasem.errors import ShapeError
from lasem.metrics.matrix import Matrix, mean


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
