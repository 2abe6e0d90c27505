import math

import pytest

from lasem.metrics import (
    backward_transfer,
    fraction_layers_shared,
    transfer_frequencies,
)
from lasem.metrics.accuracy import MatrixLike

from .fixture import LOWER, MATRIX


@pytest.mark.parametrize("matrix", [MATRIX, LOWER])
def test_backward_transfer_of_the_fixture(matrix: MatrixLike) -> None:
    assert backward_transfer(matrix) == pytest.approx(-0.0800)


@pytest.mark.parametrize("matrix", [[[0.5]], []])
def test_one_task_has_none(matrix: MatrixLike) -> None:
    assert math.isnan(backward_transfer(matrix))


def test_layers_shared() -> None:
    assert fraction_layers_shared(["TTTT", "SSTT", "SSSS"]) == pytest.approx(0.5)
    assert fraction_layers_shared(["TS", "TTTT"]) == pytest.approx(0.75)  # tasks count the same, however deep
    assert math.isnan(fraction_layers_shared([]))
    assert math.isnan(fraction_layers_shared([""]))


def test_how_often_each_layer_is_transferred() -> None:
    assert transfer_frequencies(["TTS", "TSS"]) == (1.0, 0.5, 0.0)
    assert transfer_frequencies(["T", "ST"]) == (0.5, 1.0)
    assert transfer_frequencies([]) == ()
