import math

from lasem.metrics import parameters_of_separate_models, seconds_evaluating, seconds_training
from lasem.records import TimingRecord

from .records import task_record


def test_separate_models_are_as_large_as_this_one_after_its_first_task() -> None:
    assert parameters_of_separate_models([task_record("a", 0), task_record("b", 1)]) == 2 * 110
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
