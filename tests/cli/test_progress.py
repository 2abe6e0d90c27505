"""What a run shows while it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from lasem.cli.progress import Shown
from lasem.experiments import ExperimentConfig
from lasem.methods import EWC
from lasem.records import EpochRecord, TaskRecord, TimingRecord
from lasem.training import TrainingConfig


class Moments(Shown):
    def __init__(self, config: ExperimentConfig) -> None:
        self.lines: list[str] = []
        self.moments: list[tuple[str, float | None]] = []
        self.run_starts(config, Path("x"))
        self.seed_starts(0, 2, 0)

    def line(self, text: str) -> None:
        self.lines.append(text)

    def moment(self, text: str, share: float | None) -> None:
        self.moments.append((text, share))

    def learn(self, task: str, phases: list[tuple[str, int]]) -> list[str]:
        """The moments of one task, whose phases have a title and a number of epochs."""
        before = len(self.moments)
        self.task_starts(task, 0)
        titles = [title for title, num in phases for _ in range(num)]
        for epoch, title in enumerate(titles, start=1):
            record = EpochRecord(
                task=task,
                epoch=epoch,
                loss=1.0,
                valid_accuracy=0.5,
                configuration="TT",
                probabilities=(1.0,),
                num_evaluated=1,
                phase=title,
            )
            self.epoch_ends(record, TimingRecord(task=task, epoch=epoch, seconds_training=1, seconds_evaluating=0))
        numbers = {"valid_accuracy": 0.5, "peak_accuracy": 0.5, "best_epoch": 1, "num_epochs": len(titles)}
        counts = {
            "index": 0,
            "parameters_added": 1,
            "parameters_shared": 1,
            "parameters_total": 2,
            "commit_epoch": None,
        }
        choice = {"classes": ("a", "b"), "configuration": "TT", "configurations": ("TT",)}
        self.task_ends(TaskRecord(task=task, **numbers, **counts, **choice), {}, 3.0)  # type: ignore[arg-type]
        return [text for text, _ in self.moments[before:]]


@pytest.fixture
def baseline() -> Moments:
    return Moments(ExperimentConfig(method=EWC(), training=TrainingConfig(epochs=3)))


def test_a_baseline_chooses_no_layers(baseline: Moments) -> None:
    first, *_, last = baseline.learn("a", [("", 3)])
    assert first == "task 1/2, epoch 1/3: valid 50.0 %"
    assert last.startswith("task 1/2, epoch 3/3, 0 s left")
    assert baseline.lines[-1] == "a: peak 50.0 %, 3 s"
    assert baseline.moments[-1][1] == 0.5


def test_sharing_and_search_show_the_leading_configuration() -> None:
    shown = Moments(ExperimentConfig(training=TrainingConfig(epochs=3)))
    assert shown.learn("a", [("", 1)]) == ["task 1/2, epoch 1/3: valid 50.0 %, TT (p 1.00)"]
    assert shown.lines[-1] == "a: TT, peak 50.0 %, 3 s"


def test_phases_are_named_and_their_epochs_known_once_a_task_had_them(baseline: Moments) -> None:
    assert baseline.learn("a", [("search", 2), ("retraining", 3)])[::4] == [
        "task 1/2, search, epoch 1: valid 50.0 %",
        "task 1/2, retraining, epoch 5: valid 50.0 %",
    ]
    *_, last = baseline.learn("b", [("search", 2), ("retraining", 4)])[:5]
    assert last.startswith("task 2/2, retraining, epoch 5/5, 0 s left")
    assert "epoch 6:" in baseline.moments[-1][0]  # more than the task before had
    assert baseline.moments[4][1] == 0.0  # how far the first task is, nobody knows
