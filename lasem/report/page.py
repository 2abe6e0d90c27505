"""The report of a run, drawn from its files alone: the page ``report.html`` and the table for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lasem.metrics import Run, Statistic, forgetting_ratios, seconds_training, statistic
from lasem.records import TaskRecord
from lasem.report.experiment import Experiment, load_experiment
from lasem.report.frame import Cell, Column, Frame, keep_together, mean_cell, number_cell, render, write_text
from lasem.report.numbers import DASH, Unit, count, display_name, duration, percent, plus_minus, ratio, short_count
from lasem.report.verdict import progress_sentence, verdict

if TYPE_CHECKING:
    from rich.table import Table

    from lasem.report.figures import Drawing

Section = tuple[str, str, "Drawing | None", str]
"""A figure's place on the page: id, heading, the figure, and what is said if there is nothing to draw."""

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
    """Draw ``report.html`` and ``figures/`` from the files of a run, finished or not.

    The page is one file that opens without a network; drawn twice from the same files it has the same bytes.

    Args:
        run_dir: the run's folder, with ``seeds/0/records.jsonl`` and what else the run wrote.

    Returns:
        The path of the page.

    Raises:
        StorageError: if ``run_dir`` is no run's folder, or a file in it is damaged, or it cannot be written to.
    """
    run_dir = Path(run_dir)
    experiment = load_experiment(run_dir)
    sections = {run.seed: _sections(run, experiment.method) for run in experiment.runs}
    for of_seed in sections.values():
        for _, _, drawing, _ in of_seed:
            if drawing is not None:
                drawing.write(run_dir / "figures")
    page = render(
        "report.html.jinja",
        name=display_name(experiment.name),
        verdict=keep_together(verdict(experiment)),
        progress=progress_sentence(experiment),
        tiles=_tiles(experiment),
        method=experiment.method,
        experiment=experiment,
        averaged=[run.seed for run in experiment.comparable_runs],
        quantities=_quantities(experiment),
        tasks_over_seeds=tasks_frame(experiment, experiment.comparable_runs),
        tasks={run.seed: tasks_frame(experiment, [run]) for run in experiment.runs},
        sections=sections,
        config=experiment.config,
        environment=experiment.environment,
    )
    return write_text(run_dir / "report.html", page)


def console_table(run_dir: Path) -> Table:
    """Return the final table of a run for ``rich.print``; with several seeds, mean and deviation over them.

    Raises:
        StorageError: if ``run_dir`` is no run's folder, or a file in it is damaged.
    """
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
    rows = [_task_row(experiment, n, of_task, several=several) for n, of_task in enumerate(learned.values(), start=1)]
    if not several and (task := runs[0].unfinished_task) is not None:
        rows.append(_unfinished_row(experiment, runs[0], task))
    return Frame(columns=columns, rows=tuple(rows), footer=_footer(experiment, runs) if learned else ())


def _task_row(
    experiment: Experiment, number: int, of_task: Sequence[tuple[Run, TaskRecord]], *, several: bool
) -> tuple[Cell, ...]:
    """One task over the seeds that learned it."""
    records = [record for _, record in of_task]
    task, peaks = records[0].task, [record.peak_accuracy for record in records]
    finals = [_final_accuracies(run).get(task, float("nan")) for run, _ in of_task]
    chosen = tuple(record.configuration for record in records)
    different = len(set(chosen))
    best = records[0].best_epoch
    layers = Cell(text=(chosen[0] if different == 1 else f"{different} different") or DASH, configurations=chosen)
    return (
        Cell(text=str(number), number=number),
        Cell(text=display_name(task, 48)),
        Cell(text=str(len(records[0].classes)), number=len(records[0].classes)),
        *([] if experiment.method else [layers]),
        mean_cell(statistic(peaks), percent),
        mean_cell(statistic(finals), percent),
        mean_cell(statistic([float(each) for each in forgetting_ratios(peaks, finals)]), ratio),
        mean_cell(statistic([record.parameters_added for record in records]), count),
        *([] if several else [Cell(text=f"{best} / {records[0].num_epochs}", number=best)]),
        mean_cell(statistic([seconds_training(run.timings, task) for run, _ in of_task]), duration),
    )


def _final_accuracies(run: Run) -> dict[str, float]:
    names = [record.task for record in run.evaluated_tasks]
    return dict(zip(names, map(float, run.final_accuracies), strict=True))


def _unfinished_row(experiment: Experiment, run: Run, task: str) -> tuple[Cell, ...]:
    epochs = run.epochs(task)
    unknown = Cell(text=DASH)
    leading = epochs[-1].configuration
    return (
        Cell(text=str(len(run.tasks) + 1), number=len(run.tasks) + 1),
        Cell(text=display_name(task, 48), below=f"being learned, epoch {len(epochs)}"),
        unknown,
        *([] if experiment.method else [Cell(text=leading or DASH, configurations=(leading,))]),
        *[unknown] * 4,
        Cell(text=f"{DASH} / {len(epochs)}"),
        number_cell(seconds_training(run.timings, task), duration),
    )


def _footer(experiment: Experiment, runs: Sequence[Run]) -> tuple[Cell, ...]:
    summaries = [experiment.summaries[run.seed] for run in runs]

    def mean(quantity: str, unit: Unit) -> Cell:
        return mean_cell(statistic([getattr(summary, quantity) for summary in summaries]), unit)

    empty, total = Cell(text=""), mean("parameters_total", count)
    return (
        empty,
        Cell(text="Mean or total"),
        empty,
        *([] if experiment.method else [empty]),
        mean("peak_accuracy", percent),
        mean("final_accuracy", percent),
        mean("forgetting_ratio", ratio),
        Cell(text=mean("parameters_added", count).text, below=f"{total.text} in all"),
        *([] if len(runs) > 1 else [empty]),
        mean("seconds_training", duration),
    )


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


def _tiles(experiment: Experiment) -> list[tuple[str, str, str, str]]:
    """(what, how much, its deviation, what that means) for the numbers at the top of the page."""
    means, num_tasks = experiment.means, experiment.num_tasks
    if not num_tasks:
        return []
    separate = means["parameters_of_separate_models"].mean
    share = f"{100 * means['parameters_total'].mean / (separate or 1):.0f} % of {num_tasks} separate models of its kind"
    evaluating = means["seconds_evaluating"].mean
    per_seed = "a seed, " if len(experiment.comparable_runs) > 1 else ""
    without = f"{per_seed}without evaluation ({duration(evaluating)})" if evaluating == evaluating else "not recorded"

    def split(value: Statistic, write: Callable[[float], str], unit: str = "") -> tuple[str, str]:
        return write(value.mean) + unit, f"± {write(value.deviation)}" if value.num_seeds > 1 else ""

    return [
        ("Peak accuracy", *split(means["peak_accuracy"], percent, " %"), "when each task had just been learned"),
        ("Final accuracy", *split(means["final_accuracy"], percent, " %"), "on all tasks, with the model as it is"),
        ("Forgetting ratio", *split(means["forgetting_ratio"], ratio), "final / peak; 1 is nothing forgotten"),
        ("Parameters", short_count(means["parameters_total"].mean), "", share if separate > 0 else ""),
        ("Training time", duration(means["seconds_training"].mean), "", without),
    ]


def _sections(run: Run, method: str | None) -> list[Section]:
    # here, for matplotlib takes half a second to import and most commands draw nothing
    from lasem.report.figures.bars import draw_parameters
    from lasem.report.figures.heatmap import draw_accuracy_matrix, draw_layer_probabilities, draw_transfer_map
    from lasem.report.figures.lines import draw_accuracy_over_time, draw_probabilities
    from lasem.report.figures.tree import draw_tree

    matrix, over_time, parameters = draw_accuracy_matrix(run), draw_accuracy_over_time(run), draw_parameters(run)
    sections: list[Section] = [
        ("matrix", "Accuracy on every task after each task", matrix, "No task has been evaluated yet.")
    ]
    if method is None:
        search = draw_layer_probabilities(run) or draw_probabilities(run)
        tree = draw_tree(run)
        nothing = "No task was learned yet with a choice of layers."
        sections += [
            ("layers", "Layers that each task transfers", draw_transfer_map(run), nothing),
            ("search", "How the search decided", search, "Every task had one configuration only."),
            *([("tree", "The tree of configurations", tree, "")] if tree else []),
        ]
    return [
        *sections,
        ("time", "Accuracy over time", over_time, "Nothing has been trained yet."),
        ("parameters", "Parameters added by each task", parameters, "No task has been learned to its end yet."),
    ]
