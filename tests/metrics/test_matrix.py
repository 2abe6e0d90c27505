import numpy as np
import pytest

from lasem.errors import ShapeError
from lasem.metrics.matrix import as_accuracies, as_matrix, mean

from .fixture import LOWER, MATRIX


def test_rows_up_to_the_diagonal_leave_the_rest_unmeasured() -> None:
    matrix = as_matrix(LOWER)
    np.testing.assert_array_equal(matrix[np.tril_indices(4)], np.array(MATRIX)[np.tril_indices(4)])
    assert np.isnan(matrix[np.triu_indices(4, k=1)]).all()


def test_a_full_matrix_is_kept() -> None:
    np.testing.assert_array_equal(as_matrix(MATRIX), np.array(MATRIX))
    np.testing.assert_array_equal(as_matrix(np.array(MATRIX)), np.array(MATRIX))


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"row 1 has 2 entries .* or 3; got 1"):
        as_matrix([[0.5], [0.5], [0.5, 0.5, 0.5]])


def test_one_accuracy_for_each_task_is_needed() -> None:
    with pytest.raises(ShapeError, match="single-task accuracies, one for each of 3 tasks"):
        as_accuracies("single-task accuracies", [0.5], 3)


def test_the_mean_leaves_out_what_was_not_measured() -> None:
    assert mean([0.5, float("nan"), 1.0]) == 0.75
    assert np.isnan(mean([]))
    assert np.isnan(mean([float("nan")]))
