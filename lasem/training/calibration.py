"""Calibration: how far a network's probabilities are from how often it is right, and the temperature that mends them.

.. [Guo2017] C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger. On Calibration of Modern Neural Networks. ICML 2017.
.. [Naeini2015] M. P. Naeini, G. F. Cooper, M. Hauskrecht. Obtaining Well Calibrated Probabilities Using Bayesian
   Binning. AAAI 2015.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

_BOUNDS = (0.01, 100.0)
_STEPS = 60


def best_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature that divides logits so that the mean cross-entropy is least ([Guo2017]_), 0.01 to 100.

    Where that is below 1 and would make answers surer, a label counts as wrong with probability 1 / (N + 2), as by the
    rule of succession, and the temperature is at most 1. Else a few images that are all answered rightly would make
    answers as sure as can be.

    Args:
        logits: shape (N, num_classes).
        labels: shape (N,).
    """
    values = logits.double().cpu()
    of_labels = values.gather(1, labels.cpu()[:, None])[:, 0]
    of_others = (values.sum(dim=1) - of_labels) / (values.shape[1] - 1)
    found = _where_it_is_least(values, of_labels)
    return (
        found if found >= 1 else min(1.0, _where_it_is_least(values, of_labels.lerp(of_others, 1 / (len(values) + 2))))
    )


def _where_it_is_least(values: Tensor, expected: Tensor) -> float:
    """Bisect for the temperature of the least mean cross-entropy, which is convex in b = 1 / temperature.

    Its derivative in b is what the softmax of b times the values expects of a value less what the labels expect.
    """
    low, high = 1 / _BOUNDS[1], 1 / _BOUNDS[0]
    for _ in range(_STEPS):
        middle = (low * high) ** 0.5
        slope = ((torch.softmax(middle * values, dim=1) * values).sum(dim=1) - expected).mean()
        low, high = (low, middle) if slope > 0 else (middle, high)
    return 1 / high


@final
@dataclass(frozen=True)
class Bin:
    """Answers whose probability is within narrow bounds."""

    num_images: int
    num_right: int
    confidence: float
    """Mean probability of the answers; 0 if there are none."""


def calibration_bins(confidences: Tensor, right: Tensor, num_bins: int = 15) -> tuple[Bin, ...]:
    """Count answers by their probability, in bins of equal width.

    Args:
        confidences: of the answers, in [0, 1], shape (N,); a bin holds those above its lower edge ([Naeini2015]_).
        right: whether each answer is right, shape (N,).
        num_bins: bins of [0, 1].
    """
    bins = (confidences.double() * num_bins).ceil().long().sub(1).clamp(0, num_bins - 1)
    counts, rights = (torch.bincount(bins[chosen], minlength=num_bins) for chosen in (slice(None), right))
    means = torch.bincount(bins, confidences.double(), num_bins) / counts.clamp(min=1)
    return tuple(map(Bin, counts.tolist(), rights.tolist(), means.tolist()))


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """Return the mean distance of confidence and accuracy over bins, each weighed by its images."""
    gaps = (abs(one.confidence * one.num_images - one.num_right) for one in bins)
    return sum(gaps) / sum(one.num_images for one in bins)
