"""The final table of a run as plain data: a row for each task, the means, mean and deviation over seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lasem.metrics import (
    Run,
    Statistic,
    Summary,
    aggregate,
    forgetting_ratios,
    seconds_training,
    statistic,
    summarise,
)
from lasem.report.experiment import Experiment, Progress, load_experiment

_NAN = float("nan")


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """One task of one seed. Accuracies are fractions in [0, 1]; NaN stands for what is not known (yet)."""

    number: int
    """From 1, in the order of learning."""
    task: str
    num_classes: int | None
    configuration: str
    learned: bool
    """False for a task whose learning was cut off: its configuration is the one that led."""
    peak_accuracy: float
    final_accuracy: float
    forgetting_ratio: float
    parameters_added: float
    num_epochs: int
    best_epoch: int | None
    seconds_training: float


@dataclass(frozen=True, kw_only=True)
class TaskOverSeeds:
    """One task over the seeds that learned it."""

    task: str
    configurations: tuple[str, ...]
    """The configuration that each seed chose."""
    peak_accuracy: Statistic
    final_accuracy: Statistic
    forgetting_ratio: Statistic
    parameters_added: Statistic
    seconds_training: Statistic


@dataclass(frozen=True, kw_only=True)
class SeedTable:
    """One seed: its rows, their means, how far it has come."""

    seed: int
    rows: tuple[TaskRow, ...]
    summary: Summary
    progress: Progress


@dataclass(frozen=True, kw_only=True)
class ResultTable:
    """What the command prints at the end and the page shows first."""

    name: str
    method: str | None
    """The baseline that learned; None for sharing and search, which choose a configuration for each task."""
    seeds: tuple[SeedTable, ...]
    averaged_seeds: tuple[int, ...]
    """The seeds behind ``tasks`` and ``over_seeds``: the finished ones, or all if none is finished."""
    tasks: tuple[TaskOverSeeds, ...]
    over_seeds: dict[str, Statistic]
    """By the names of a Summary's quantities."""

    @property
    def finished(self) -> bool:
        """Whether every seed learned every task that is known of."""
        return all(table.progress.finished for table in self.seeds)


def result_table(run_dir: Path) -> ResultTable:
    """Compute the final table from the files of a run, finished or not.

    Raises:
        StorageError: if ``run_dir`` is no run's folder, or a file in it is damaged.
    """
    return tabulate(load_experiment(run_dir))


def tabulate(experiment: Experiment) -> ResultTable:
    """The same from an experiment that was read already."""
    seeds = tuple(
        SeedTable(seed=run.seed, rows=task_rows(run), summary=summarise(run), progress=experiment.progress(run))
        for run in experiment.runs
    )
    averaged = tuple(run.seed for run in experiment.comparable_runs)
    tables = [table for table in seeds if table.seed in averaged]
    return ResultTable(
        name=experiment.name,
        method=experiment.method,
        seeds=seeds,
        averaged_seeds=averaged,
        tasks=_tasks_over_seeds(tables),
        over_seeds=aggregate([table.summary for table in tables]),
    )


def task_rows(run: Run) -> tuple[TaskRow, ...]:
    """A row for each task that one seed learned, and for the one being learned."""
    final = {record.task: float(a) for record, a in zip(run.evaluated_tasks, run.final_accuracies, strict=True)}
    rows = []
    for number, record in enumerate(run.tasks, start=1):
        last = final.get(record.task, _NAN)
        rows.append(
            TaskRow(
                number=number,
                task=record.task,
                num_classes=len(record.classes),
                configuration=record.configuration,
                learned=True,
                peak_accuracy=record.peak_accuracy,
                final_accuracy=last,
                forgetting_ratio=float(forgetting_ratios([record.peak_accuracy], [last])[0]),
                parameters_added=record.parameters_added,
                num_epochs=record.num_epochs,
                best_epoch=record.best_epoch,
                seconds_training=seconds_training(run.timings, record.task),
            )
        )
    if run.unfinished_task is not None:
        epochs = run.epochs(run.unfinished_task)
        rows.append(
            TaskRow(
                number=len(rows) + 1,
                task=run.unfinished_task,
                num_classes=None,
                configuration=epochs[-1].configuration,
                learned=False,
                peak_accuracy=_NAN,
                final_accuracy=_NAN,
                forgetting_ratio=_NAN,
                parameters_added=_NAN,
                num_epochs=len(epochs),
                best_epoch=None,
                seconds_training=seconds_training(run.timings, run.unfinished_task),
            )
        )
    return tuple(rows)


def _tasks_over_seeds(tables: list[SeedTable]) -> tuple[TaskOverSeeds, ...]:
    by_task: dict[str, list[TaskRow]] = {}
    for table in tables:
        for row in table.rows:
            if row.learned:
                by_task.setdefault(row.task, []).append(row)

    def over(rows: list[TaskRow], value: Callable[[TaskRow], float]) -> Statistic:
        return statistic([value(row) for row in rows])

    return tuple(
        TaskOverSeeds(
            task=task,
            configurations=tuple(row.configuration for row in rows),
            peak_accuracy=over(rows, lambda row: row.peak_accuracy),
            final_accuracy=over(rows, lambda row: row.final_accuracy),
            forgetting_ratio=over(rows, lambda row: row.forgetting_ratio),
            parameters_added=over(rows, lambda row: row.parameters_added),
            seconds_training=over(rows, lambda row: row.seconds_training),
        )
        for task, rows in by_task.items()
    )
