import math

import numpy as np
import pytest

from lasem.metrics import (
    average_incremental_accuracy,
    final_accuracies,
    learned_accuracies,
    mean_final_accuracy,
    mean_peak_accuracy,
)

from .fixture import FINAL, LOWER, MATRIX, PEAK


@pytest.mark.parametrize("matrix", [MATRIX, LOWER])
def test_the_fixture(matrix: tuple[tuple[float, ...], ...]) -> None:
    np.testing.assert_array_equal(learned_accuracies(matrix), PEAK)
    np.testing.assert_array_equal(final_accuracies(matrix), FINAL)
    assert mean_peak_accuracy(PEAK) == pytest.approx(0.8575)
    assert mean_final_accuracy(matrix) == pytest.approx(0.7975)
    by_hand = (0.90 + (0.95 + 0.80) / 2 + (0.75 + 0.60 + 0.85) / 3 + (0.82 + 0.84 + 0.65 + 0.88) / 4) / 4
    assert average_incremental_accuracy(matrix) == pytest.approx(by_hand)


def test_one_task_and_none() -> None:
    assert mean_final_accuracy([[0.5]]) == average_incremental_accuracy([[0.5]]) == 0.5
    assert math.isnan(mean_final_accuracy([]))
    assert math.isnan(average_incremental_accuracy([]))
    assert math.isnan(mean_peak_accuracy([]))
