"""The significance of a difference between methods, from pairs: the same seed and task, learned by both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from lasem.metrics.measures import Matrix
from lasem.metrics.run import Run

_MAX_EXACT = 14
_NUM_FLIPS = 20_000


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
