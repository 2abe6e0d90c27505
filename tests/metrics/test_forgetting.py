import math
from collections.abc import Callable

import pytest

from lasem.metrics import (
    backward_transfer,
    forgetting_chaudhry,
    forgetting_first_last,
    forgetting_libcontinual,
    forgetting_max_over_all,
    forgetting_renate,
)
from lasem.metrics.matrix import MatrixLike

from .fixture import LOWER, MATRIX

VARIANTS = [
    (forgetting_first_last, 0.0800),
    (forgetting_chaudhry, 0.0967),
    (forgetting_renate, 0.0967),
    (forgetting_max_over_all, 0.1100),
    (forgetting_libcontinual, 0.0133),
]


@pytest.mark.parametrize("matrix", [MATRIX, LOWER])
@pytest.mark.parametrize(("forgetting", "expected"), VARIANTS)
def test_the_fixture(forgetting: Callable[[MatrixLike], float], expected: float, matrix: MatrixLike) -> None:
    assert forgetting(matrix) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(("forgetting", "expected"), VARIANTS)
def test_one_task_has_none(forgetting: Callable[[MatrixLike], float], expected: float) -> None:
    assert math.isnan(forgetting([[0.5]]))
    assert math.isnan(forgetting([]))


def test_only_the_variants_differ_where_a_task_was_good_before_it_was_learned() -> None:
    matrix = [[0.5, 0.9, 0.1], [0.5, 0.6, 0.1], [0.5, 0.6, 0.7]]
    assert forgetting_chaudhry(matrix) == pytest.approx(0.0)
    assert forgetting_renate(matrix) == pytest.approx(0.15)


def test_first_last_is_the_negative_of_backward_transfer() -> None:
    assert forgetting_first_last(MATRIX) == pytest.approx(-backward_transfer(MATRIX))
