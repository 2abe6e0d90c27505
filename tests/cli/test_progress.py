"""What a run shows while it goes on."""

import re
from pathlib import Path

import pytest
from metrics.records import epoch_record, task_record

from lasem.cli.progress import EpochLines, Remaining, duration
from lasem.experiments import ExperimentConfig
from lasem.methods import EWC
from lasem.records import TimingRecord
from lasem.training import TrainingConfig

from .tiny import Lines


class Moments(Lines):
    def __init__(self, config: ExperimentConfig) -> None:
        super().__init__()
        self.run_starts(config, Path("x"))
        self.seed_starts(0, 2, 0)

    def learn(self, task: str, phases: list[tuple[str, int]]) -> list[str]:
        """The moments of one task, whose phases have a title and a number of epochs."""
        before = len(self.moments)
        self.task_starts(task, 0)
        titles = [title for title, num in phases for _ in range(num)]
        for epoch, title in enumerate(titles, start=1):
            record = epoch_record(task, epoch, configuration="TT", probabilities=(1.0,), phase=title)
            self.epoch_ends(record, TimingRecord(task=task, epoch=epoch, seconds_training=1, seconds_evaluating=0))
        self.task_ends(task_record(task, 0, configuration="TT", num_epochs=len(titles)), {}, 3.0)
        return [text for text, _ in self.moments[before:]]


@pytest.fixture
def baseline() -> Moments:
    return Moments(ExperimentConfig(method=EWC(), training=TrainingConfig(epochs=3)))


def test_a_baseline_chooses_no_layers(baseline: Moments) -> None:
    first, *_, last = baseline.learn("a", [("", 3)])
    assert first == "task 1/2, epoch 1/3: loss 1, valid 50.0 %, 1 s an epoch"
    assert last.startswith("task 1/2, epoch 3/3, 0 s left")
    assert (baseline.lines[-1], baseline.moments[-1][1]) == ("a: peak 50.0 %, 3 s", 0.5)


def test_sharing_and_search_show_the_leading_configuration() -> None:
    shown = Moments(ExperimentConfig(training=TrainingConfig(epochs=3)))
    assert shown.learn("a", [("", 1)]) == ["task 1/2, epoch 1/3: loss 1, valid 50.0 %, 1 s an epoch, TT (p 1.00)"]
    assert shown.lines[-1] == "a: TT, peak 50.0 %, 3 s"


def test_phases_are_named_and_their_epochs_known_once_a_task_had_them(baseline: Moments) -> None:
    assert baseline.learn("a", [("search", 2), ("retraining", 3)])[::4] == [
        "task 1/2, search, epoch 1: loss 1, valid 50.0 %, 1 s an epoch",
        "task 1/2, retraining, epoch 5: loss 1, valid 50.0 %, 1 s an epoch",
    ]
    *_, last = baseline.learn("b", [("search", 2), ("retraining", 4)])[:5]
    assert last.startswith("task 2/2, retraining, epoch 5/5, 0 s left")
    assert "epoch 6:" in baseline.moments[-1][0]  # more than the task before had
    assert baseline.moments[4][1] == 0.0  # how far the first task is, nobody knows


def test_nothing_is_known_before_the_second_epoch() -> None:
    remaining = Remaining()
    assert remaining.estimate(0, 10, 0) is None
    remaining.add(1, 100.0)  # warming up
    assert remaining.estimate(1, 10, 0) is None


def test_epochs_that_search_take_longer_in_later_tasks_too() -> None:
    remaining = Remaining()
    remaining.add(1, 100.0)
    for epoch, seconds in ((1, 8.0), (2, 8.0), (3, 1.0)):
        remaining.add(epoch, seconds)
    assert (remaining.estimate(3, 4, 0), remaining.estimate(3, 4, 2)) == (1, 1 + 2 * (8 + 8 + 1 + 1))
    remaining.add(4, 2.0)
    assert remaining.estimate(4, 4, 0) == 0


def test_the_time_of_a_searched_epoch_is_not_taken_for_that_of_all() -> None:
    """A task that is searched in its first three of ten epochs, which take five times as long as the others."""
    shown = Moments(ExperimentConfig())
    lines = EpochLines(shown, "model", 10, "lasem learn model --resume")
    for epoch in range(1, 6):
        record = epoch_record("a", epoch, num_evaluated=4 if epoch <= 3 else 1)
        seconds = 50.0 if epoch <= 3 else 10.0
        lines.epoch_ends(record, TimingRecord(task="a", epoch=epoch, seconds_training=seconds, seconds_evaluating=0.0))
    assert [re.findall(", ([^,]*) left", text) for text, _ in shown.moments] == [[], [], [], ["1:00 min"], ["50 s"]]


def test_the_command_that_goes_on_watches_again() -> None:
    shown = Moments(ExperimentConfig())
    shown.again = ("--watch", "tensorboard")
    shown.run_starts(ExperimentConfig(), Path("x"))
    assert shown.stopped.endswith("go on with: lasem run --resume x --watch tensorboard")


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (59.6, "1:00 min"), (125, "2:05 min"), (12000, "3:20 h")])
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
