"""The cost of a run: parameters and seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lasem.records import TaskRecord, TimingRecord


def parameters_of_separate_models(tasks: Sequence[TaskRecord]) -> int:
    """``T * total after the first task``: what as many models would hold, each the size of this one with one task.

    Exact if the heads are equally large. After its first task a model with hard sharing is one plain network.
    """
    return len(tasks) * tasks[0].parameters_total if tasks else 0


def seconds_training(timings: Iterable[TimingRecord], task: str | None = None) -> float:
    """Seconds of optimisation steps, evaluation not included, of one task or of all; NaN if nothing was timed.

    The authors' ``training_time`` is another quantity: it includes evaluating every task on three splits every epoch.
    """
    return _sum([t.seconds_training for t in timings if task in (None, t.task)])


def seconds_evaluating(timings: Iterable[TimingRecord], task: str | None = None) -> float:
    """Seconds spent on validation and test accuracies, of one task or of all; NaN if nothing was timed."""
    return _sum([t.seconds_evaluating for t in timings if task in (None, t.task)])


def _sum(seconds: Sequence[float]) -> float:
    return sum(seconds) if seconds else float("nan")
