import math

import numpy as np
import pytest

from lasem.errors import ShapeError
from lasem.metrics import average_incremental_accuracy, mean_final_accuracy, mean_peak_accuracy
from lasem.metrics.accuracy import MatrixLike, as_matrix, mean

from .fixture import LOWER, MATRIX, PEAK

NAN = float("nan")


@pytest.mark.parametrize("matrix", [MATRIX, LOWER, np.array(MATRIX)])
def test_the_fixture(matrix: MatrixLike) -> None:
    assert mean_peak_accuracy(PEAK) == pytest.approx(0.8575)
    assert mean_final_accuracy(matrix) == pytest.approx(0.7975)
    by_hand = (0.90 + (0.95 + 0.80) / 2 + (0.75 + 0.60 + 0.85) / 3 + (0.82 + 0.84 + 0.65 + 0.88) / 4) / 4
    assert average_incremental_accuracy(matrix) == pytest.approx(by_hand)


def test_one_task_and_none() -> None:
    assert mean_final_accuracy([[0.5]]) == average_incremental_accuracy([[0.5]]) == 0.5
    assert all(math.isnan(of([])) for of in (mean_final_accuracy, average_incremental_accuracy, mean_peak_accuracy))


def test_rows_up_to_the_diagonal_leave_the_rest_unmeasured() -> None:
    matrix = as_matrix(LOWER)
    np.testing.assert_array_equal(matrix[np.tril_indices(4)], np.array(MATRIX)[np.tril_indices(4)])
    assert np.isnan(matrix[np.triu_indices(4, k=1)]).all()
    np.testing.assert_array_equal(as_matrix(MATRIX), np.array(MATRIX))


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"row 1 has 2 entries .* or 3; got 1"):
        as_matrix([[0.5], [0.5], [0.5, 0.5, 0.5]])


def test_the_mean_leaves_out_what_was_not_measured() -> None:
    assert mean([0.5, NAN, 1.0]) == 0.75
    assert math.isnan(mean([]))
    assert math.isnan(mean([NAN]))
