"""Measures of how well a search chooses, from the accuracies of every configuration with several seeds.

Arrays have the shape (S, C, K): S seeds, which differ in weights and order of images alone, C configurations, K tasks.
Accuracies are peak test accuracies, in [0, 1]. A choice is a weight for each configuration; they sum to 1 over C.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lasem.errors import ShapeError
from lasem.metrics import Matrix


def accuracies_of_others(accuracies: Matrix) -> Matrix:
    """Return M, for each seed the mean over all other seeds, shape (S, C, K).

    It is no part of the run whose choice it judges, so that no choice gains by its own run's luck.

    Raises:
        ShapeError: if there are not three dimensions, two seeds and two configurations.
    """
    if accuracies.ndim != 3 or min(accuracies.shape[:2]) < 2:
        raise ShapeError(
            f"Expected accuracies of at least two seeds and two configurations, of shape (seeds, configurations, "
            f"tasks); got shape {accuracies.shape}."
        )
    return np.asarray((accuracies.sum(axis=0) - accuracies) / (len(accuracies) - 1))


def regrets(accuracies: Matrix, weights: Matrix) -> Matrix:
    """Return ``max_c M(c, k) - sum_c w(c, k) M(c, k)``, shape (S, K); 0 is best, NaN where a weight is NaN.

    The maximum of noisy means is too high, so that even the truly best configuration has some regret: compare choices
    with each other. Errors as of ``accuracies_of_others``.
    """
    others = accuracies_of_others(accuracies)
    return np.asarray(others.max(axis=1) - (weights * others).sum(axis=1))


def among_best(accuracies: Matrix) -> NDArray[np.bool_]:
    """Return whether a configuration is at most one standard error below the best one by M, shape (S, C, K).

    The error is that of the difference of two such means. Its variance is what is left when the means of seeds and of
    configurations are taken out, the same for all configurations of a task. Errors as of ``accuracies_of_others``.
    """
    others, (num_seeds, num_configurations, _) = accuracies_of_others(accuracies), accuracies.shape
    rest = accuracies - accuracies.mean(axis=1, keepdims=True)
    rest -= rest.mean(axis=0)
    variance = (rest**2).sum(axis=(0, 1)) / ((num_seeds - 1) * (num_configurations - 1))
    return np.asarray(others >= others.max(axis=1, keepdims=True) - np.sqrt(2 * variance / (num_seeds - 1)))


def repeated_share(accuracies: Matrix) -> float:
    """Return the share of the variance over configurations that repeats with another seed.

    The covariance over configurations of two seeds, averaged over pairs of seeds and tasks, divided by the variance,
    averaged over seeds and tasks: 1 if every seed has the same differences, about 0 if they are chance, perhaps below.
    Averages are divided, not ratios averaged: that of one task with few seeds is too small on average. NaN where all
    accuracies of a task and seed are alike. Errors as of ``accuracies_of_others``.
    """
    accuracies_of_others(accuracies)
    centred = accuracies - accuracies.mean(axis=1, keepdims=True)
    within = float((centred**2).sum())  # the mean variance, times S C K
    between = float((centred.sum(axis=0) ** 2).sum()) - within  # the mean covariance, times S (S - 1) C K
    return between / (len(accuracies) - 1) / within if within else float("nan")
