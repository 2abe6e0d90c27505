"""The result of a run in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from lasem.metrics import Statistic
from lasem.report.experiment import Experiment, Progress
from lasem.report.numbers import DASH, display_name, duration, percent, plus_minus, ratio, short_count

WHOLE: Final = 0.9995
"""A forgetting ratio that is written as 1."""


def verdict(experiment: Experiment) -> str:
    """One sentence with the key numbers: peak and final accuracy, forgetting ratio, parameters, seconds."""
    means, num_tasks, num_seeds = experiment.means, experiment.num_tasks, len(experiment.comparable_runs)
    if not num_tasks:
        return "No task has been learned to its end yet, so there is nothing to judge."
    seeds = f"Over {num_seeds} seeds, one" if num_seeds > 1 else "One"
    sentence = (
        f"{seeds} model learned {_tasks(num_tasks)}: each reached {plus_minus(means['peak_accuracy'], percent)} % test "
        f"accuracy at its peak on average, and the model now answers {plus_minus(means['final_accuracy'], percent)} % "
        f"correctly, {_forgetting(means)}; "
        f"it holds {short_count(means['parameters_total'].mean)} parameters"
    )
    separate = means["parameters_of_separate_models"].mean
    if num_tasks > 1 and separate > 0:
        share = means["parameters_total"].mean / separate
        sentence += f", {100 * share:.0f} % of what {num_tasks} separate models of its kind would"
    seconds = means["seconds_training"].mean
    return sentence + (f", after {duration(seconds)} of training." if math.isfinite(seconds) else ".")


def progress_sentence(experiment: Experiment) -> str:
    """Say what is missing: nothing for a finished run, else how far each seed has come."""
    every = {run.seed: experiment.progress(run) for run in experiment.runs}
    missing = {seed: progress for seed, progress in every.items() if not progress.finished}
    if not missing:
        return ""
    parts = [(f"seed {seed}: " if len(every) > 1 else "") + _how_far(progress) for seed, progress in missing.items()]
    left_out = "" if len(missing) == len(every) else " Means are over the finished seeds."
    return f"Unfinished: {'; '.join(parts)}.{left_out}"


def _how_far(progress: Progress) -> str:
    text = (
        f"{progress.num_learned} of {_tasks(progress.num_expected)} learned" if progress.num_expected else "no task yet"
    )
    if progress.unfinished_task is not None:
        task = display_name(progress.unfinished_task, 40)
        text += f", '{task}' left after {progress.num_epochs} epoch{'s' if progress.num_epochs != 1 else ''}"
    return text


def _forgetting(means: Mapping[str, Statistic]) -> str:
    value = means["forgetting_ratio"]
    if not math.isfinite(value.mean):
        return f"so a forgetting ratio does not exist ({DASH})"
    kept = f"{100 * value.mean:.0f} % of the peak is kept"
    if means["smallest_forgetting_ratio"].mean >= WHOLE:
        kept = "nothing was forgotten"
    elif value.mean >= WHOLE:
        kept = "what some tasks lost others gained"
    return f"so {kept} (forgetting ratio {plus_minus(value, ratio)})"


def _tasks(number: int) -> str:
    return f"{number} task{'s' if number != 1 else ''}"
