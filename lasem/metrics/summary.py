"""The numbers of a run in one row, and their mean and deviation over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from lasem.metrics.accuracy import average_incremental_accuracy, mean_final_accuracy, mean_peak_accuracy
from lasem.metrics.cost import (
    fraction_layers_shared,
    parameters_added,
    parameters_of_separate_models,
    parameters_shared,
    parameters_total,
    seconds_evaluating,
    seconds_training,
)
from lasem.metrics.forgetting import forgetting_chaudhry
from lasem.metrics.forgetting_ratio import forgetting_ratio_of_means, forgetting_ratios, mean_of_forgetting_ratios
from lasem.metrics.run import Run
from lasem.metrics.transfer import backward_transfer


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One seed. Accuracies are fractions in [0, 1]; NaN stands where a quantity has no value."""

    seed: int
    num_tasks: int
    """Tasks learned and evaluated; every quantity below is over these."""
    peak_accuracy: float
    """``mean_peak_accuracy``: the paper's first number."""
    final_accuracy: float
    average_incremental_accuracy: float
    forgetting_ratio: float
    """``mean_of_forgetting_ratios``, the last task included."""
    forgetting_ratio_of_means: float
    smallest_forgetting_ratio: float
    """Of the task that lost most; NaN if no task has a ratio."""
    forgetting: float
    """``forgetting_chaudhry``."""
    backward_transfer: float
    fraction_layers_shared: float
    """Over all tasks but the first, which nothing precedes."""
    parameters_total: float
    parameters_shared: float
    parameters_added: float
    parameters_of_separate_models: float
    seconds_training: float
    """Of everything timed, a task not learned to its end included; evaluation is apart."""
    seconds_evaluating: float


QUANTITIES = tuple(f.name for f in fields(Summary) if f.name not in ("seed", "num_tasks"))
"""The names of a Summary's measured quantities: the keys of ``aggregate``."""


@dataclass(frozen=True)
class Statistic:
    """Mean and sample standard deviation (divided by n-1) over the n seeds that have the value."""

    mean: float
    deviation: float
    """NaN for fewer than two seeds."""
    num_seeds: int


def summarise(run: Run) -> Summary:
    """Compute the quantities of one seed from its records; of an unfinished run, over the tasks learned so far."""
    tasks, matrix = run.evaluated_tasks, run.accuracy_matrix
    ratios = forgetting_ratios(run.peak_accuracies, run.final_accuracies)
    return Summary(
        seed=run.seed,
        num_tasks=len(tasks),
        peak_accuracy=mean_peak_accuracy(run.peak_accuracies),
        final_accuracy=mean_final_accuracy(matrix),
        average_incremental_accuracy=average_incremental_accuracy(matrix),
        forgetting_ratio=mean_of_forgetting_ratios(run.peak_accuracies, run.final_accuracies),
        forgetting_ratio_of_means=forgetting_ratio_of_means(run.peak_accuracies, run.final_accuracies),
        smallest_forgetting_ratio=min(ratios[~np.isnan(ratios)], default=float("nan")),
        forgetting=forgetting_chaudhry(matrix),
        backward_transfer=backward_transfer(matrix),
        fraction_layers_shared=fraction_layers_shared([task.configuration for task in tasks[1:]]),
        parameters_total=parameters_total(tasks),
        parameters_shared=parameters_shared(tasks),
        parameters_added=parameters_added(tasks),
        parameters_of_separate_models=parameters_of_separate_models(tasks),
        seconds_training=seconds_training(run.timings),
        seconds_evaluating=seconds_evaluating(run.timings),
    )


def statistic(values: Sequence[float]) -> Statistic:
    """Mean and sample standard deviation of the values that are not NaN."""
    measured = [value for value in values if value == value]
    return Statistic(
        mean=statistics.fmean(measured) if measured else float("nan"),
        deviation=statistics.stdev(measured) if len(measured) > 1 else float("nan"),
        num_seeds=len(measured),
    )


def aggregate(summaries: Sequence[Summary]) -> dict[str, Statistic]:
    """The paper's aggregates: for each quantity the mean over seeds of the seeds' means, and their deviation.

    Give it finished runs of the same stream: a seed with fewer tasks is another, easier problem.
    """
    return {name: statistic([getattr(summary, name) for summary in summaries]) for name in QUANTITIES}
