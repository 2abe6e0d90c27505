import math

import numpy as np
import pytest

from lasem.errors import ShapeError
from lasem.metrics import (
    MatrixLike,
    as_matrix,
    average_incremental_accuracy,
    backward_transfer,
    forgetting_chaudhry,
    forgetting_ratio_of_means,
    forgetting_ratios,
    fraction_layers_shared,
    mean,
    mean_final_accuracy,
    mean_of_forgetting_ratios,
    mean_peak_accuracy,
    transfer_frequencies,
)

from .records import FINAL, LOWER, MATRIX, PEAK

NAN = float("nan")


@pytest.mark.parametrize("matrix", [MATRIX, LOWER, np.array(MATRIX)])
def test_the_fixture(matrix: MatrixLike) -> None:
    assert forgetting_chaudhry(matrix) == pytest.approx(0.0967, abs=5e-5)
    assert backward_transfer(matrix) == pytest.approx(-0.0800)
    assert mean_peak_accuracy(PEAK) == pytest.approx(0.8575)
    assert mean_final_accuracy(matrix) == pytest.approx(0.7975)
    by_hand = (0.90 + (0.95 + 0.80) / 2 + (0.75 + 0.60 + 0.85) / 3 + (0.82 + 0.84 + 0.65 + 0.88) / 4) / 4
    assert average_incremental_accuracy(matrix) == pytest.approx(by_hand)


def test_one_task_and_none() -> None:
    assert mean_final_accuracy([[0.5]]) == average_incremental_accuracy([[0.5]]) == 0.5
    assert all(math.isnan(of([[0.5]])) for of in (forgetting_chaudhry, backward_transfer))
    for of in (mean_final_accuracy, average_incremental_accuracy, mean_peak_accuracy, forgetting_chaudhry):
        assert math.isnan(of([]))
    assert math.isnan(backward_transfer([]))


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


def test_forgetting_counts_from_the_own_training_on() -> None:
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
    assert mean_of_forgetting_ratios([0.5, 0.8], [0.25, NAN]) == 0.5
    assert forgetting_ratio_of_means([0.5, 0.8], [0.25, NAN]) == 0.5
    assert math.isnan(mean_of_forgetting_ratios([], []))


def test_peaks_and_finals_must_match() -> None:
    with pytest.raises(ShapeError, match="one peak and one final"):
        forgetting_ratios([0.5, 0.5], [0.5])


def test_layers_shared() -> None:
    assert fraction_layers_shared(["TTTT", "SSTT", "SSSS"]) == pytest.approx(0.5)
    assert fraction_layers_shared(["TS", "TTTT"]) == pytest.approx(0.75)  # tasks count the same, however deep
    assert math.isnan(fraction_layers_shared([]))
    assert math.isnan(fraction_layers_shared([""]))


def test_how_often_each_layer_is_transferred() -> None:
    assert transfer_frequencies(["TTS", "TSS"]) == (1.0, 0.5, 0.0)
    assert transfer_frequencies(["T", "ST"]) == (0.5, 1.0)
    assert transfer_frequencies([]) == ()
