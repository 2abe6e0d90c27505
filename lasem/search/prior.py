"""The probability that a layer is transferred, learned from a stream's tasks.

Of each searched task s the logarithm b_sl of a Bayes factor is kept for each layer l: how much likelier its images are
outside of the training where the layer is transferred. With p_l before any image of a task, its posterior is q_sl, and
p_l is the mean of the posteriors and of a share m in as many tasks as a (empirical Bayes, [Robbins1956]_)::

    q_sl = sigmoid(logit p_l + b_sl)
    p_l = (a m + sum_s q_sl) / (a + S)

Bayes factors are kept, and not posteriors, so that the prior never counts what it has said itself.

.. [Robbins1956] H. Robbins. An Empirical Bayes Approach to Statistics. Third Berkeley Symposium, 1956.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_START, _MASS = 0.5, 4.0
_STEPS = 100


def learned_prior(factors: Sequence[Sequence[float]], depth: int) -> Tensor:
    """Return p of each layer, float64 of shape (d,), from the b of earlier tasks, shape (S, d); 0.5 before the first.

    The two equations are solved in turn, which rises to a maximum of the likelihood as EM does.
    """
    b = torch.tensor([list(of_task) for of_task in factors], dtype=torch.float64).reshape(len(factors), depth)
    p = torch.full((depth,), _START, dtype=torch.float64)
    for _ in range(_STEPS if len(b) else 0):
        p = (_MASS * _START + torch.sigmoid(p.logit() + b).sum(dim=0)) / (_MASS + len(b))
    return p


def bayes_factors(transfers: Tensor, evidence: Tensor) -> Tensor:
    """Return b of each layer, shape (d,), where all configurations that agree in it are equally probable.

    Args:
        transfers: 1 where a configuration transfers a layer, else 0, shape (C, d).
        evidence: log-likelihood of each configuration, shape (C,).
    """
    found = []
    for bits in transfers.bool().T:
        sides = [evidence[side].double() for side in (bits, ~bits)]
        means = [side.logsumexp(dim=0) - torch.tensor(len(side)).log() for side in sides if len(side)]
        found.append(means[0] - means[1] if len(means) == 2 else torch.zeros((), dtype=torch.float64))
    return torch.stack(found)
