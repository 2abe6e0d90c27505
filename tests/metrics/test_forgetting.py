import math

import numpy as np
import pytest

from lasem.errors import ShapeError
from lasem.metrics import (
    forgetting_chaudhry,
    forgetting_ratio_of_means,
    forgetting_ratios,
    mean_of_forgetting_ratios,
)
from lasem.metrics.accuracy import MatrixLike

from .fixture import FINAL, LOWER, MATRIX, PEAK


@pytest.mark.parametrize("matrix", [MATRIX, LOWER])
def test_chaudhrys_forgetting_of_the_fixture(matrix: MatrixLike) -> None:
    assert forgetting_chaudhry(matrix) == pytest.approx(0.0967, abs=5e-5)


def test_forgetting_needs_two_tasks_and_counts_from_the_own_training_on() -> None:
    assert math.isnan(forgetting_chaudhry([[0.5]]))
    assert math.isnan(forgetting_chaudhry([]))
    assert forgetting_chaudhry([[0.5, 0.9, 0.1], [0.5, 0.6, 0.1], [0.5, 0.6, 0.7]]) == pytest.approx(0.0)


def test_the_ratios_of_the_fixture() -> None:
    np.testing.assert_allclose(forgetting_ratios(PEAK, FINAL), [0.82 / 0.90, 0.84 / 0.80, 0.65 / 0.85, 1.0])
    assert mean_of_forgetting_ratios(PEAK, FINAL) == pytest.approx(0.9315, abs=5e-5)
    assert forgetting_ratio_of_means(PEAK, FINAL) == pytest.approx(0.9300, abs=5e-5)


def test_a_peak_of_zero_has_no_ratio() -> None:
    np.testing.assert_array_equal(forgetting_ratios([0.0, 0.5], [0.3, 0.25]), [np.nan, 0.5])
    assert mean_of_forgetting_ratios([0.0, 0.5], [0.3, 0.25]) == 0.5
    assert forgetting_ratio_of_means([0.0, 0.5], [0.25, 0.25]) == 1.0
    assert math.isnan(forgetting_ratio_of_means([0.0], [0.3]))


def test_what_was_not_measured_is_left_out() -> None:
    nan = float("nan")
    assert mean_of_forgetting_ratios([0.5, 0.8], [0.25, nan]) == 0.5
    assert forgetting_ratio_of_means([0.5, 0.8], [0.25, nan]) == 0.5
    assert math.isnan(mean_of_forgetting_ratios([], []))


def test_peaks_and_finals_must_match() -> None:
    with pytest.raises(ShapeError, match="one peak and one final"):
        forgetting_ratios([0.5, 0.5], [0.5])
