"""Who is told how a run goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import final

from lasem.experiments.config import ExperimentConfig
from lasem.records import EpochRecord, TaskRecord, TimingRecord


class Observer:
    """Is told of every step of a run and does nothing; override what is of interest. Results do not depend on it."""

    def run_starts(self, config: ExperimentConfig, directory: Path) -> None:
        """Everything that can be checked before training has been checked; the folder is this process's own."""

    def seed_starts(self, seed: int, num_tasks: int | None, num_learned: int) -> None:
        """One run of the stream begins or goes on.

        Args:
            seed: its seed.
            num_tasks: of the stream; None: not known.
            num_learned: tasks that were learned before the run was stopped.
        """

    def task_starts(self, task: str, num_epochs: int) -> None:
        """A task begins; ``num_epochs`` of it were trained before the run was stopped."""

    def epoch_ends(self, record: EpochRecord, timing: TimingRecord) -> None:
        """An epoch has been trained and can no longer be lost."""

    def task_ends(self, record: TaskRecord, final_accuracies: dict[str, float], seconds: float) -> None:
        """A task has been learned and can no longer be lost.

        Args:
            record: of the task.
            final_accuracies: test accuracy on every task so far.
            seconds: spent on training and evaluating the task.
        """

    def seed_ends(self, seed: int) -> None:
        """The stream has been learned to its end."""

    def note(self, message: str) -> None:
        """Something that a person should know."""


@final
class Teller(Observer):
    """Tells how many tasks a run of a grid has learned, and its notes."""

    def __init__(self, tell: Callable[..., None]) -> None:
        """Take what is called: with ``num_learned`` and ``num_tasks``, or with ``note``."""
        self._tell = tell

    def seed_starts(self, seed: int, num_tasks: int | None, num_learned: int) -> None:
        """See Observer."""
        self._num_tasks, self._num_learned = num_tasks, num_learned
        self._tell(num_learned=num_learned, num_tasks=num_tasks)

    def task_ends(self, record: TaskRecord, final_accuracies: dict[str, float], seconds: float) -> None:
        """See Observer."""
        self._num_learned += 1
        self._tell(num_learned=self._num_learned, num_tasks=self._num_tasks)

    def note(self, message: str) -> None:
        """See Observer."""
        self._tell(note=message)
