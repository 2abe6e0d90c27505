"""The report of a run, drawn from its files alone: the page ``report.html`` and the table for a terminal."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lasem.metrics import Run, forgetting_ratios, seconds_training, statistic
from lasem.records import TaskRecord
from lasem.report.brought import Brought, brought, reference_of, references_near
from lasem.report.experiment import Experiment, load_experiment
from lasem.report.frame import Cell, Column, Frame, keep_together, mean_cell, name_cell, number_cell, render, write_text
from lasem.report.numbers import DASH, Unit, count, display_name, duration, percent, plus_minus, ratio, short_count

if TYPE_CHECKING:
    from rich.table import Table

    from lasem.report.figures import Drawing

WHOLE = 0.9995
"""A forgetting ratio that is written as 1."""

_QUANTITIES = (
    ("peak_accuracy", "Peak accuracy, %", percent),
    ("final_accuracy", "Final accuracy, %", percent),
    ("average_incremental_accuracy", "Average incremental accuracy, %", percent),
    ("forgetting_ratio", "Forgetting ratio, mean of final / peak", ratio),
    ("forgetting_ratio_of_means", "Forgetting ratio, mean final / mean peak", ratio),
    ("forgetting", "Forgetting (Chaudhry), points", percent),
    ("backward_transfer", "Backward transfer (GEM), points", percent),
    ("fraction_layers_shared", "Layers transferred, % (without the first task)", percent),
    ("parameters_total", "Parameters in all", count),
    ("parameters_shared", "Parameters shared", count),
    ("seconds_training", "Training time", duration),
    ("seconds_evaluating", "Evaluation time", duration),
)


def write_report(run_dir: Path) -> Path:
    """Draw ``report.html`` and ``figures/`` from the files of a run, finished or not; return the path of the page.

    It is one file that opens without a network; of the same files it has the same bytes. StorageError if a file is
    damaged, or the folder is no run's or cannot be written to.
    """
    run_dir = Path(run_dir)
    experiment = load_experiment(run_dir)
    figures = {run.seed: _figures(run, experiment.method) for run in experiment.runs}
    gain = gain_of(experiment)
    first = gain.draw("tasks")
    for drawing in (first, *(drawing for of_seed in figures.values() for drawing in of_seed.values())):
        if drawing is not None:
            drawing.write(run_dir / "figures")
    page = render(
        "report.html.jinja",
        name=display_name(experiment.name),
        verdict=keep_together(verdict(experiment)),
        first=first,
        brought=keep_together(gain.sentence) if first and not reference_of(experiment.config) else "",
        progress=progress_sentence(experiment),
        method=experiment.method,
        experiment=experiment,
        averaged=[run.seed for run in experiment.comparable_runs],
        quantities=_quantities(experiment),
        tasks_over_seeds=tasks_frame(experiment, experiment.comparable_runs),
        tasks={run.seed: tasks_frame(experiment, [run]) for run in experiment.runs},
        figures=figures,
        config=experiment.config,
        environment=experiment.environment,
    )
    return write_text(run_dir / "report.html", page)


def gain_of(experiment: Experiment) -> Brought:
    """Return what a run brought, from the references next to it."""
    references = {} if reference_of(experiment.config) else references_near(experiment.folder)
    return brought("The model", experiment.comparable_runs, references)


def _figures(run: Run, method: str | None) -> "dict[str, Drawing | None]":
    # here, for matplotlib takes half a second to import and most commands draw nothing
    from lasem.report.figures.bars import draw_parameters
    from lasem.report.figures.heatmap import draw_accuracy_matrix, draw_layer_probabilities, draw_transfer_map
    from lasem.report.figures.lines import draw_accuracy_over_time, draw_probabilities
    from lasem.report.figures.tree import draw_tree

    drawn = {
        "matrix": draw_accuracy_matrix(run),
        "time": draw_accuracy_over_time(run),
        "parameters": draw_parameters(run),
    }
    if method is None:
        search = draw_layer_probabilities(run) or draw_probabilities(run)
        drawn |= {"layers": draw_transfer_map(run), "search": search, "tree": draw_tree(run)}
    return drawn


def verdict(experiment: Experiment) -> str:
    """One sentence with the key numbers: peak and final accuracy, forgetting ratio, parameters, seconds."""
    means, num_tasks, num_seeds = experiment.means, experiment.num_tasks, len(experiment.comparable_runs)
    if not num_tasks:
        return "No task has been learned to its end yet, so there is nothing to judge."
    value, seconds = means["forgetting_ratio"], means["seconds_training"].mean
    if means["smallest_forgetting_ratio"].mean >= WHOLE:
        kept = "nothing was forgotten"
    elif value.mean >= WHOLE:
        kept = "what some tasks lost others gained"
    else:
        kept = f"{100 * value.mean:.0f} % of the peak is kept"
    forgetting = f"{kept} (forgetting ratio {plus_minus(value, ratio)})"
    seeds = f"Over {num_seeds} seeds, one" if num_seeds > 1 else "One"
    sentence = (
        f"{seeds} model learned {_tasks(num_tasks)}: each reached {plus_minus(means['peak_accuracy'], percent)} % test "
        f"accuracy at its peak on average, and the model now answers {plus_minus(means['final_accuracy'], percent)} % "
        f"correctly, so {forgetting if math.isfinite(value.mean) else f'a forgetting ratio does not exist ({DASH})'}; "
        f"it holds {short_count(means['parameters_total'].mean)} parameters"
    )
    if num_tasks > 1 and experiment.share_of_separate_models:
        sentence += f", {experiment.share_of_separate_models} of what {num_tasks} separate models of its kind would"
    return sentence + (f", after {duration(seconds)} of training." if math.isfinite(seconds) else ".")


def progress_sentence(experiment: Experiment) -> str:
    """Say what is missing: nothing for a finished run, else how far each seed has come."""
    missing = [run for run in experiment.runs if not experiment.has_all_tasks(run)]
    if not missing:
        return ""
    several = len(experiment.runs) > 1
    parts = [(f"seed {run.seed}: " if several else "") + _how_far(run, experiment.num_expected) for run in missing]
    left_out = "" if len(missing) == len(experiment.runs) else " Means are over the finished seeds."
    return f"Unfinished: {'; '.join(parts)}.{left_out}"


def _how_far(run: Run, num_expected: int) -> str:
    text = f"{len(run.evaluated_tasks)} of {_tasks(num_expected)} learned" if num_expected else "no task yet"
    if run.unfinished_task is not None:
        num_epochs = len(run.epochs(run.unfinished_task))
        task = display_name(run.unfinished_task, 40)
        text += f", '{task}' left after {num_epochs} epoch{'s' if num_epochs != 1 else ''}"
    return text


def _tasks(number: int) -> str:
    return f"{number} task{'s' if number != 1 else ''}"


def console_table(run_dir: Path) -> "Table":
    """Return the final table of a run for ``rich.print``; with several seeds, mean and deviation over them."""
    experiment = load_experiment(run_dir)
    runs = experiment.comparable_runs
    several = f", mean ± deviation of {len(runs)} seeds" if len(runs) > 1 else ""
    frame = tasks_frame(experiment, runs)
    return frame.console(f"{display_name(experiment.name)}{several}", progress_sentence(experiment))


def tasks_frame(experiment: Experiment, runs: Sequence[Run]) -> Frame:
    """Return a row for each task, and the means: of one seed with the task being learned, or over several seeds."""
    several = len(runs) > 1
    columns = (
        Column(heading="#", console=False),
        Column(heading="Task", numeric=False),
        Column(heading="Classes", console=False),
        *([] if experiment.method else [Column(heading="Layers", numeric=False, fixed=several)]),
        Column(heading="Peak %"),
        Column(heading="Final %"),
        Column(heading="Final / peak"),
        Column(heading="Parameters added"),
        *([] if several else [Column(heading="Best / epochs", console=False)]),
        Column(heading="Training time"),
    )
    learned: dict[str, list[tuple[Run, TaskRecord]]] = {}
    for run in runs:
        for record in run.tasks:
            learned.setdefault(record.task, []).append((run, record))
    rows = [_task_row(number, of_task) for number, of_task in enumerate(learned.values(), start=1)]
    if not several and (task := runs[0].unfinished_task) is not None:
        rows.append(_unfinished_row(runs[0], task))

    def line(cells: dict[str, Cell], otherwise: str) -> tuple[Cell, ...]:
        return tuple(cells.get(column.heading, Cell(text=otherwise)) for column in columns)

    footer = line(_footer(experiment, runs), "") if learned else ()
    return Frame(columns=columns, rows=tuple(line(row, DASH) for row in rows), footer=footer)


def _task_row(number: int, of_task: Sequence[tuple[Run, TaskRecord]]) -> dict[str, Cell]:
    """One task over the seeds that learned it, by heading."""
    records = [record for _, record in of_task]
    sources = sorted({record.source for record in records if record.source is not None})
    task, first, peaks = records[0].task, records[0], [record.peak_accuracy for record in records]
    finals = [[{}, *run.evaluations.values()][-1].get(task, float("nan")) for run, _ in of_task]
    chosen = tuple(record.configuration for record in records)
    different = len(set(chosen))
    return {
        "#": Cell(text=str(number), number=number),
        "Task": name_cell(task, 48),
        "Classes": Cell(text=str(len(first.classes)), number=len(first.classes)),
        "Layers": Cell(
            text=(chosen[0] if different == 1 else f"{different} different") or DASH,
            configurations=chosen,
            below=f"of {', '.join(display_name(name, 48) for name in sources)}" if sources else "",
        ),
        "Peak %": mean_cell(statistic(peaks), percent),
        "Final %": mean_cell(statistic(finals), percent),
        "Final / peak": mean_cell(statistic(forgetting_ratios(peaks, finals).tolist()), ratio),
        "Parameters added": mean_cell(statistic([record.parameters_added for record in records]), count),
        "Best / epochs": Cell(text=f"{first.best_epoch} / {first.num_epochs}", number=first.best_epoch),
        "Training time": mean_cell(statistic([seconds_training(run.timings, task) for run, _ in of_task]), duration),
    }


def _unfinished_row(run: Run, task: str) -> dict[str, Cell]:
    epochs, number = run.epochs(task), len(run.tasks) + 1
    leading = epochs[-1].configuration
    return {
        "#": Cell(text=str(number), number=number),
        "Task": Cell(text=display_name(task, 48), below=f"being learned, epoch {len(epochs)}"),
        "Layers": Cell(text=leading or DASH, configurations=(leading,)),
        "Best / epochs": Cell(text=f"{DASH} / {len(epochs)}"),
        "Training time": number_cell(seconds_training(run.timings, task), duration),
    }


def _footer(experiment: Experiment, runs: Sequence[Run]) -> dict[str, Cell]:
    def mean(quantity: str, unit: Unit) -> Cell:
        return mean_cell(statistic([getattr(experiment.summaries[run.seed], quantity) for run in runs]), unit)

    added, total = mean("parameters_added", count), mean("parameters_total", count)
    return {
        "Task": Cell(text="Mean or total"),
        "Peak %": mean("peak_accuracy", percent),
        "Final %": mean("final_accuracy", percent),
        "Final / peak": mean("forgetting_ratio", ratio),
        "Parameters added": Cell(text=added.text, below=f"{total.text} in all"),
        "Training time": mean("seconds_training", duration),
    }


def _quantities(experiment: Experiment) -> Frame:
    """Every quantity of a Summary: mean and deviation over seeds, and each seed's value."""
    seeds = experiment.summaries.items()
    headings = ("Mean ± deviation", *(f"Seed {seed}" for seed, _ in seeds))
    return Frame(
        columns=(Column(heading="Quantity", numeric=False), *(Column(heading=heading) for heading in headings)),
        rows=tuple(
            (
                Cell(text=heading),
                Cell(text=plus_minus(experiment.means[key], unit), strong=True),
                *(number_cell(getattr(summary, key), unit) for _, summary in seeds),
            )
            for key, heading, unit in _QUANTITIES
            if not (experiment.method and key == "fraction_layers_shared")
        ),
    )
