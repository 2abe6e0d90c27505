import math

import pytest

from lasem.errors import ShapeError
from lasem.metrics import (
    backward_transfer,
    backward_transfer_gem_code,
    backward_transfer_libcontinual,
    backward_transfer_pairs,
    forward_transfer,
    forward_transfer_gem_code,
    forward_transfer_without_baseline,
    transfer_vs_single_task,
)
from lasem.metrics.matrix import MatrixLike

from .fixture import LOWER, MATRIX, PEAK, UNTRAINED


@pytest.mark.parametrize("matrix", [MATRIX, LOWER])
def test_backward_on_the_fixture(matrix: MatrixLike) -> None:
    assert backward_transfer(matrix) == pytest.approx(-0.0800)
    assert backward_transfer_gem_code(matrix) == pytest.approx(-0.0600)
    assert backward_transfer_pairs(matrix) == pytest.approx(-0.0900)
    assert backward_transfer_libcontinual(matrix) == pytest.approx(-0.0317, abs=5e-5)


def test_forward_on_the_fixture() -> None:
    assert forward_transfer(MATRIX, UNTRAINED) == pytest.approx(0.1767, abs=5e-5)
    assert forward_transfer_gem_code(MATRIX, UNTRAINED) == pytest.approx(0.1325)
    assert forward_transfer_without_baseline(MATRIX) == pytest.approx(0.2767, abs=5e-5)


def test_forward_needs_what_lies_above_the_diagonal() -> None:
    assert math.isnan(forward_transfer(LOWER, UNTRAINED))
    assert math.isnan(forward_transfer_gem_code(LOWER, UNTRAINED))
    assert math.isnan(forward_transfer_without_baseline(LOWER))


def test_transfer_against_single_task_includes_every_task() -> None:
    assert transfer_vs_single_task(PEAK, (0.85, 0.85, 0.85, 0.85)) == pytest.approx((0.05 - 0.05 + 0.0 + 0.03) / 4)
    with pytest.raises(ShapeError, match="single-task"):
        transfer_vs_single_task(PEAK, (0.85,))


@pytest.mark.parametrize("matrix", [[[0.5]], []])
def test_one_task_has_none(matrix: MatrixLike) -> None:
    untrained = [0.1] * len(matrix)
    assert math.isnan(backward_transfer(matrix))
    assert math.isnan(backward_transfer_pairs(matrix))
    assert math.isnan(backward_transfer_libcontinual(matrix))
    assert math.isnan(forward_transfer(matrix, untrained))
    assert math.isnan(forward_transfer_gem_code(matrix, untrained))
    assert math.isnan(forward_transfer_without_baseline(matrix))
    assert math.isnan(transfer_vs_single_task([], []))
