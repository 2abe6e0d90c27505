"""What EM believes before a task's first mini-batch: how probable it is that each layer transfers.

The first layers of a network are the more general ones, and what transfers through them is the more use to other tasks
([Yosinski2014]_). Where likelihoods do not tell configurations apart, as in a task's first mini-batches, this decides.

.. [Yosinski2014] J. Yosinski, J. Clune, Y. Bengio, H. Lipson. How transferable are features in deep neural networks?
   NeurIPS 2014.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lasem.errors import ConfigError, check_range


def check_prior_start(setting: str, start: Sequence[float] | None) -> tuple[float, float] | None:
    """The two probabilities, of the first and of the last layer; ConfigError unless both are in (0, 1), or none."""
    if start is None:
        return None
    if len(start) != 2:
        raise ConfigError(
            f"{setting} is two probabilities of transfer, of the first and of the last layer, such as 0.6,0.2; got "
            f"{', '.join(map(str, start))}."
        )
    for probability in start:
        check_range(setting, probability, above=0, below=1)
    first, last = start
    return first, last


def straight_line(start: tuple[float, float], num_groups: int) -> Tensor:
    """Probability of transfer of each group of layers, from the first to the last; of a single one their mean.

    Returns:
        Shape (num_groups,), float64, on the CPU.
    """
    if num_groups == 1:
        return torch.tensor([sum(start) / 2], dtype=torch.float64)
    return torch.linspace(*start, num_groups, dtype=torch.float64)


def of_choices(bits: Tensor, probability: Tensor) -> Tensor:
    """How probable each group's own choice is: ``probability`` where it transfers, what remains to 1 where not.

    Args:
        bits: of n configurations, 1 where a group transfers, shape (n, num_groups).
        probability: of transfer, shape (num_groups,).

    Returns:
        Shape (n, num_groups); a configuration's prior is the product of its row.
    """
    return torch.where(bits > 0, probability, 1 - probability)
