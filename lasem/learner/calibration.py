"""Calibration: how far a network's probabilities are from how often it is right, and the temperature that mends them.

.. [Guo2017] C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger. On Calibration of Modern Neural Networks. ICML 2017.
.. [Naeini2015] M. P. Naeini, G. F. Cooper, M. Hauskrecht. Obtaining Well Calibrated Probabilities Using Bayesian
   Binning. AAAI 2015.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BOUNDS = (0.01, 100.0)
_STEPS = 60


def best_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature that divides logits so that the mean cross-entropy is least ([Guo2017]_), 0.01 to 100.

    With b = 1 / temperature the cross-entropy is convex in b, and its derivative is what the logits are expected to be
    less what those of the labels are. It is 0 where the temperature is best, which bisection finds. If every label has
    the largest logit, cross-entropy falls without end as the temperature does, and the answer is 1.

    Args:
        logits: shape (N, num_classes).
        labels: shape (N,).
    """
    values = logits.double().cpu()
    of_labels = values.gather(1, labels.cpu()[:, None])[:, 0]
    if bool((of_labels == values.max(dim=1).values).all()):
        return 1.0

    def slope(inverse: float) -> float:
        expected = (torch.softmax(inverse * values, dim=1) * values).sum(dim=1)
        return float((expected - of_labels).mean())

    low, high = 1 / _BOUNDS[1], 1 / _BOUNDS[0]
    for _ in range(_STEPS):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 1 / high


def expected_calibration_error(confidences: Tensor, right: Tensor, num_bins: int = 15) -> float:
    """Return the mean distance of confidence and accuracy over bins of equal width, each weighed by its images.

    Args:
        confidences: of the answers, in [0, 1], shape (N,); a bin holds those above its lower edge ([Naeini2015]_).
        right: whether each answer is right, shape (N,).
        num_bins: bins of [0, 1].
    """
    bins = (confidences.double() * num_bins).ceil().long().sub(1).clamp(0, num_bins - 1)
    gaps = torch.zeros(num_bins, dtype=torch.float64).index_add_(0, bins, confidences.double() - right.double())
    return float(gaps.abs().sum()) / len(confidences)
