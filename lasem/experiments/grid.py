"""A grid of runs: its jobs, what happens to them, and the executors that make them."""

from __future__ import annotations

import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

from lasem.errors import LasemError
from lasem.experiments import folder
from lasem.experiments.config import ExperimentConfig
from lasem.experiments.runner import Observer, run
from lasem.records import TaskRecord


@final
@dataclass(frozen=True)
class Job:
    """One run to make, or to resume where its folder holds a part of it."""

    name: str
    config: ExperimentConfig
    directory: Path
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class Event:
    """Something that has happened to a job."""

    name: str


class Started(Event):
    """It has begun."""


@dataclass(frozen=True)
class Learned(Event):
    """It has learned so many tasks."""

    num_learned: int
    num_tasks: int | None


@dataclass(frozen=True)
class Noted(Event):
    """A person should know something about it."""

    message: str


@dataclass(frozen=True)
class Ended(Event):
    """It has come to its end."""

    seconds: float
    error: str | None
    """Why it failed; None if it did not."""
    details: str = ""
    """The traceback, or what a killed process wrote to stderr."""


Notify = Callable[[Event], None]


class AbstractExecutor(ABC):
    """A place where runs are made. To make them elsewhere, subclass it and pass an object to ``compare``."""

    remote: ClassVar[bool] = False
    """Whether runs may be made on other machines, so that their devices need not be on this one."""

    @abstractmethod
    def run(self, jobs: Sequence[Job], num_workers: int, notify: Notify) -> None:
        """Make every job's run by ``run_job``; a job that fails does not stop the others.

        A run can be killed at any moment and goes on when it is started again. When ``notify`` or anything else raises,
        no job may go on.

        Args:
            jobs: in the order in which they begin.
            num_workers: jobs at a time.
            notify: is called in this thread with what happens to each job, from ``Started`` to ``Ended``.
        """


@final
class ThisProcess(AbstractExecutor):
    """Runs in the calling process, one after another."""

    def run(self, jobs: Sequence[Job], num_workers: int, notify: Notify) -> None:
        for job in jobs:
            notify(Started(job.name))
            run_job(job, notify)


def run_job(job: Job, notify: Notify) -> None:
    """Make or resume one run in this process. Its errors are in ``Ended``, the last event."""
    started = time.monotonic()
    error, details = None, ""
    try:
        run(
            job.config,
            job.directory,
            observer=_JobObserver(job.name, notify),
            resume=(job.directory / folder.CONFIG).exists(),
            command=job.command,
        )
    except Exception as failure:
        kind = "" if isinstance(failure, LasemError) else f"unexpected {type(failure).__name__}: "
        error, details = f"{kind}{failure}", traceback.format_exc()
    notify(Ended(job.name, time.monotonic() - started, error, details))


def local_device(name: str, executor: AbstractExecutor | None) -> str:
    """Return the device to check on this machine for an executor's runs: the CPU if theirs need not be here."""
    return "cpu" if executor is not None and executor.remote else name


@final
class _JobObserver(Observer):
    """The number of learned tasks and the notes, as events."""

    def __init__(self, name: str, notify: Notify) -> None:
        self._name, self._notify = name, notify

    def seed_starts(self, seed: int, num_tasks: int | None, num_learned: int) -> None:
        self._num_tasks, self._num_learned = num_tasks, num_learned
        self._notify(Learned(self._name, num_learned, num_tasks))

    def task_ends(self, record: TaskRecord, final_accuracies: dict[str, float], seconds: float) -> None:
        self._num_learned += 1
        self._notify(Learned(self._name, self._num_learned, self._num_tasks))

    def note(self, message: str) -> None:
        self._notify(Noted(self._name, message))
