"""What a run costs: parameters, seconds, and how much of the network is shared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lasem.metrics.matrix import mean
from lasem.records import TaskRecord, TimingRecord


def parameters_total(tasks: Sequence[TaskRecord]) -> int:
    """Everything the model holds after the last task, the shared part counted once; 0 before the first task."""
    return tasks[-1].parameters_total if tasks else 0


def parameters_shared(tasks: Sequence[TaskRecord]) -> int:
    """The shared knowledge after the last task."""
    return tasks[-1].parameters_shared if tasks else 0


def parameters_added(tasks: Sequence[TaskRecord]) -> int:
    """``sum_t parameters_added[t]``: what the tasks hold for themselves alone, heads included, the last one too."""
    return sum(task.parameters_added for task in tasks)


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


def fraction_layers_shared(configurations: Sequence[str]) -> float:
    """``mean_t (layers of task t that transfer) / (its layers)``, every task given included.

    In [0, 1]; NaN if no task has layers. Leave the first task out if it should not count: nothing precedes it.
    """
    return mean([c.count("T") / len(c) for c in configurations if c])


def transfer_frequencies(configurations: Sequence[str]) -> tuple[float, ...]:
    """For each layer the fraction of the given tasks that transfer it, in [0, 1] (the talk's fifth figure)."""
    num_layers = max((len(c) for c in configurations), default=0)
    return tuple(
        mean([float(c[layer] == "T") for c in configurations if layer < len(c)]) for layer in range(num_layers)
    )


def _sum(seconds: Sequence[float]) -> float:
    return sum(seconds) if seconds else float("nan")
