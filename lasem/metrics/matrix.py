"""The accuracy matrix: one row for each task learned, one column for each task tested."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lasem.errors import ShapeError

Matrix = NDArray[np.float64]
MatrixLike = Matrix | Sequence[Sequence[float]]


def as_matrix(accuracies: MatrixLike) -> Matrix:
    """Bring accuracies into a square matrix of floats.

    Args:
        accuracies: ``accuracies[i][j]`` is the test accuracy in [0, 1] on task j after training task i, from 0. Rows
            may end at the diagonal (what lies beyond becomes NaN) or be full, with NaN where nothing was measured.
    Returns:
        The matrix ``a``, shape ``(T, T)``.
    Raises:
        ShapeError: if row i has neither ``i + 1`` nor ``T`` entries.
    """
    num_tasks = len(accuracies)
    matrix = np.full((num_tasks, num_tasks), np.nan)
    for i, row in enumerate(accuracies):
        if len(row) not in (i + 1, num_tasks):
            raise ShapeError(
                f"Expected an accuracy matrix of {num_tasks} tasks, whose row {i} has {i + 1} entries "
                f"(up to the diagonal) or {num_tasks}; got {len(row)}. "
                "Give one row for each task learned, in the order of learning."
            )
        matrix[i, : len(row)] = row
    return matrix


def as_accuracies(name: str, values: Sequence[float] | Matrix, num_tasks: int) -> Matrix:
    """Bring one accuracy for each task into a vector, shape ``(T,)``.

    Raises:
        ShapeError: if there is not one value for each task.
    """
    vector = np.asarray(values, dtype=np.float64)
    if vector.shape != (num_tasks,):
        raise ShapeError(f"Expected {name}, one for each of {num_tasks} tasks; got shape {vector.shape}.")
    return vector


def mean(values: Sequence[float] | Matrix) -> float:
    """Mean of the values that were measured (are not NaN); NaN, without a warning, if there are none."""
    array = np.asarray(values, dtype=np.float64)
    measured = array[~np.isnan(array)]
    return float(measured.mean()) if measured.size else float("nan")
