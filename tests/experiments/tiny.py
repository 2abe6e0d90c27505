"""A run that takes a second: digits, few images, few epochs."""

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lasem import EM, DigitsReader, TrainingConfig
from lasem.experiments import ExperimentConfig, Observer, grid, run, runner
from lasem.experiments.grid import AbstractExecutor, Ended, Job, Notify, Started, ThisProcess
from lasem.records import EpochRecord, TimingRecord

READER: dict[str, Any] = {"train_per_class": 4, "valid_per_class": 2, "test_per_class": 4, "classes_per_task": 3}
PLANTED: dict[str, Any] = {"train_per_class": 3, "valid_per_class": 2, "test_per_class": 3, "clearest": 1.0}
"""In a new process scikit-learn's digits take longer than all the rest."""


def tiny(num_tasks: int = 2, epochs: int = 3, **settings: Any) -> ExperimentConfig:
    return ExperimentConfig(
        **{
            "stream": DigitsReader(num_tasks=num_tasks, **READER),
            "search": EM(first_task="search", commit_share=0.7),
            "training": TrainingConfig(epochs=epochs),
            "threads": 1,
            **settings,
        }
    )


def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than the run; it has tests of its own."""
    monkeypatch.setattr("lasem.experiments.runner.write_report", lambda directory: directory)


class Killed(BaseException):
    """No handler of the program may see it: a killed process handles nothing."""


class _Stop(Observer):
    def epoch_ends(self, record: EpochRecord, timing: TimingRecord) -> None:
        if (record.task, record.epoch) == ("digits-1", 1):
            raise Killed


def stop(config: ExperimentConfig, directory: Path) -> None:
    """Begin a run that is killed after the first epoch of its second task."""
    with pytest.raises(Killed):
        run(config, directory, observer=_Stop(), checkpoint_seconds=0)


def records_of(directory: Path, seed: int = 0) -> bytes:
    return (directory / "seeds" / str(seed) / "records.jsonl").read_bytes()


def table_of(directory: Path) -> list[list[str]]:
    """The table of a comparison without times."""
    lines = (directory / "comparison.md").read_text().splitlines()
    return [[cell for cell in line.split("|") if " s " not in cell] for line in lines if "|" in line]


def kill(directory: Path) -> bool:
    """Kill the process that has a run's folder locked, and return whether there was one."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(os.readlink(handle) == str(directory / ".lock") for handle in (process / "fd").iterdir()):
                os.kill(int(process.name), signal.SIGKILL)
                return True
    return False


class Fake(AbstractExecutor):
    """Makes runs in this process, without reports, or only lists what it is given."""

    def __init__(self, fail: Sequence[str] = (), *, makes: bool = True, remote: bool = False) -> None:
        self.jobs: list[Job] = []
        self.fail, self.makes = fail, makes
        self.remote = remote  # type: ignore[misc]

    @property
    def names(self) -> list[str]:
        return [job.name for job in self.jobs]

    def run(self, jobs: Sequence[Job], num_workers: int, notify: Notify) -> None:
        self.jobs += jobs
        for job in jobs if self.makes else ():
            if job.name in self.fail:
                notify(Started(job.name))
                notify(Ended(job.name, 0.1, "it went wrong"))
            else:
                ThisProcess().run([job], 1, notify)
                (job.directory / "report.html").touch()


def light_main(*arguments: Any) -> None:
    """What a process of ``ProcessPool`` does, without reports."""
    runner.write_report = lambda directory: (directory / "report.html").touch()  # type: ignore[assignment, return-value]
    _MAIN(*arguments)


_MAIN = grid._main
