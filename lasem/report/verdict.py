"""What a run amounts to, in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from lasem.metrics import Statistic
from lasem.report.numbers import DASH, display_name, duration, percent, plus_minus, ratio, short_count
from lasem.report.tables import ResultTable, SeedTable

WHOLE: Final = 0.9995
"""A forgetting ratio that is written as 1."""


def verdict(result: ResultTable) -> str:
    """One sentence with the key numbers: peak and final accuracy, forgetting ratio, parameters, seconds."""
    means = result.over_seeds
    num_tasks = max(table.summary.num_tasks for table in result.seeds)
    if not num_tasks:
        return "No task has been learned to its end yet, so there is nothing to judge."
    seeds = f"Over {len(result.averaged_seeds)} seeds, one" if len(result.averaged_seeds) > 1 else "One"
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


def progress_sentence(result: ResultTable) -> str:
    """What is missing: empty for a finished run, else how far each seed has come."""
    missing = [table for table in result.seeds if not table.progress.finished]
    if not missing:
        return ""
    several = len(result.seeds) > 1
    parts = [(f"seed {table.seed}: " if several else "") + _how_far(table) for table in missing]
    left_out = "" if len(missing) == len(result.seeds) else " Means are over the finished seeds."
    return f"Unfinished: {'; '.join(parts)}.{left_out}"


def _how_far(table: SeedTable) -> str:
    progress = table.progress
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
