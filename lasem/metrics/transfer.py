"""Transfer between tasks: backward transfer, and which layers are shared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lasem.metrics.accuracy import MatrixLike, as_matrix, mean


def backward_transfer(accuracies: MatrixLike) -> float:
    """``1/(T-1) sum_{j<T-1} (a[T-1][j] - a[j][j])``, the last task left out; NaN for one task. Higher is better.

    Source: GEM's paper (Lopez-Paz, Ranzato, NeurIPS 2017); the same in Mammoth, Renate and CLArena.
    """
    matrix = as_matrix(accuracies)
    return mean((matrix[-1] - np.diagonal(matrix))[:-1] if len(matrix) else [])


def fraction_layers_shared(configurations: Sequence[str]) -> float:
    """``mean_t (layers of task t that transfer) / (its layers)``, every task given included.

    In [0, 1]; NaN if no task has layers. Leave the first task out if it should not count: nothing precedes it.
    """
    return mean([c.count("T") / len(c) for c in configurations if c])


def transfer_frequencies(configurations: Sequence[str]) -> tuple[float, ...]:
    """For each layer the fraction of the given tasks that transfer it, in [0, 1] (the talk's fifth figure)."""
    num_layers = max((len(c) for c in configurations), default=0)
    return tuple(
        mean([float(c[layer] == "T") for c in configurations if layer < len(c)]) for layer in range(num_layers)
    )
