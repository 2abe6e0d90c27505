import math

import pytest

from lasem.metrics import (
    fraction_layers_shared,
    parameters_added,
    parameters_of_separate_models,
    parameters_shared,
    parameters_total,
    seconds_evaluating,
    seconds_training,
    transfer_frequencies,
)
from lasem.records import TimingRecord

from .records import task_record


def test_parameters() -> None:
    tasks = [task_record("a", 0), task_record("b", 1)]
    assert parameters_total(tasks) == 120
    assert parameters_shared(tasks) == 100
    assert parameters_added(tasks) == 10 + 11
    assert parameters_of_separate_models(tasks) == 2 * 110


def test_before_the_first_task_there_are_none() -> None:
    assert parameters_total([]) == parameters_shared([]) == parameters_added([]) == 0
    assert parameters_of_separate_models([]) == 0


def test_seconds_of_training_are_apart_from_those_of_evaluation() -> None:
    timings = [
        TimingRecord(task="a", epoch=1, seconds_training=2.0, seconds_evaluating=0.5),
        TimingRecord(task="a", epoch=None, seconds_training=0.0, seconds_evaluating=1.0),
        TimingRecord(task="b", epoch=1, seconds_training=4.0, seconds_evaluating=0.25),
    ]
    assert (seconds_training(timings), seconds_evaluating(timings)) == (6.0, 1.75)
    assert (seconds_training(timings, "a"), seconds_evaluating(timings, "a")) == (2.0, 1.5)
    assert math.isnan(seconds_training(timings, "c"))
    assert math.isnan(seconds_evaluating([]))


def test_layers_shared() -> None:
    assert fraction_layers_shared(["TTTT", "SSTT", "SSSS"]) == pytest.approx(0.5)
    assert fraction_layers_shared(["TS", "TTTT"]) == pytest.approx(0.75)  # tasks count the same, however deep
    assert math.isnan(fraction_layers_shared([]))
    assert math.isnan(fraction_layers_shared([""]))


def test_how_often_each_layer_is_transferred() -> None:
    assert transfer_frequencies(["TTS", "TSS"]) == (1.0, 0.5, 0.0)
    assert transfer_frequencies(["T", "ST"]) == (0.5, 1.0)
    assert transfer_frequencies([]) == ()
