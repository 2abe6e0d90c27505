"""``report.html``: one page about one experiment, drawn from its files alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lasem.metrics import Run, Statistic
from lasem.report.experiment import Experiment, load_experiment
from lasem.report.figures.drawing import Drawing
from lasem.report.html import keep_together, render
from lasem.report.numbers import count, display_name, duration, percent, plus_minus, ratio, short_count
from lasem.report.tables import ResultTable, SeedTable, tabulate
from lasem.report.text_files import to_csv, write_text
from lasem.report.verdict import progress_sentence, verdict

_QUANTITIES: tuple[tuple[str, str, Callable[[float], str]], ...] = (
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


@dataclass(frozen=True)
class Section:
    """A figure's place on the page; ``drawing`` is None where there is nothing to draw, and ``instead`` says why."""

    key: str
    heading: str
    drawing: Drawing | None
    instead: str


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
    result = tabulate(experiment)
    sections = {run.seed: _sections(run, experiment.method) for run in experiment.runs}
    for section in (section for of_seed in sections.values() for section in of_seed):
        if section.drawing is not None:
            stem = run_dir / "figures" / section.drawing.name
            write_text(stem.with_name(f"{stem.name}.svg"), section.drawing.svg)
            write_text(stem.with_name(f"{stem.name}.csv"), to_csv(section.drawing.columns, section.drawing.rows))
    return write_text(run_dir / "report.html", _render(experiment, result, sections))


def _sections(run: Run, method: str | None) -> list[Section]:
    # here, for matplotlib takes half a second to import and most commands draw nothing
    from lasem.report import figures

    matrix = Section(
        "matrix",
        "Accuracy on every task after each task",
        figures.draw_accuracy_matrix(run),
        "No task has been evaluated yet.",
    )
    choice = [
        Section(
            "layers",
            "Layers that each task transfers",
            figures.draw_transfer_map(run),
            "No task was learned yet with a choice of layers.",
        ),
        Section(
            "search",
            "How the search decided",
            figures.draw_layer_probabilities(run) or figures.draw_probabilities(run),
            "Every task had one configuration only: there was nothing to search.",
        ),
    ]
    if (tree := figures.draw_tree(run)) is not None:
        choice.append(Section("tree", "The tree of configurations", tree, ""))
    cost = [
        Section(
            "time",
            "Accuracy over time",
            figures.draw_accuracy_over_time(run),
            "Nothing has been trained yet.",
        ),
        Section(
            "parameters",
            "Parameters added by each task",
            figures.draw_parameters(run),
            "No task has been learned to its end yet.",
        ),
    ]
    return [matrix, *cost] if method else [matrix, *choice, *cost]


def _render(experiment: Experiment, result: ResultTable, sections: dict[int, list[Section]]) -> str:
    return render(
        "report.html.jinja",
        name=display_name(result.name),
        verdict=keep_together(verdict(result)),
        progress=progress_sentence(result),
        tiles=_tiles(result),
        result=result,
        quantities=_quantities(result),
        sections=sections,
        config=experiment.config,
        environment={k: v for k, v in experiment.environment.items() if k != "command"},
        command=experiment.environment.get("command"),
        write={"percent": percent, "ratio": ratio, "count": count, "duration": duration},
    )


def _tiles(result: ResultTable) -> list[tuple[str, str, str, str]]:
    """(what, how much, its deviation, what that means) for the numbers at the top of the page."""
    means = result.over_seeds
    num_tasks = max(table.summary.num_tasks for table in result.seeds)
    if not num_tasks:
        return []
    total = means["parameters_total"]
    separate = means["parameters_of_separate_models"].mean
    share = f"{100 * total.mean / separate:.0f} % of {num_tasks} separate models of its kind" if separate > 0 else ""
    return [
        ("Peak accuracy", *_split(means["peak_accuracy"], percent, " %"), "when each task had just been learned"),
        ("Final accuracy", *_split(means["final_accuracy"], percent, " %"), "on all tasks, with the model as it is"),
        ("Forgetting ratio", *_split(means["forgetting_ratio"], ratio), "final / peak; 1 is nothing forgotten"),
        ("Parameters", short_count(total.mean), "", share),
        ("Training time", duration(means["seconds_training"].mean), "", _evaluation_note(result)),
    ]


def _split(value: Statistic, write: Callable[[float], str], unit: str = "") -> tuple[str, str]:
    return write(value.mean) + unit, f"± {write(value.deviation)}" if value.num_seeds > 1 else ""


def _evaluation_note(result: ResultTable) -> str:
    evaluating = result.over_seeds["seconds_evaluating"].mean
    per_seed = "a seed, " if len(result.averaged_seeds) > 1 else ""
    return f"{per_seed}without evaluation ({duration(evaluating)})" if evaluating == evaluating else "not recorded"


def _quantities(result: ResultTable) -> list[tuple[str, str, Sequence[str]]]:
    """(what, mean and deviation over seeds, each seed's value) for every quantity of a Summary."""
    by_seed: list[SeedTable] = list(result.seeds)
    return [
        (heading, plus_minus(result.over_seeds[key], write), [write(getattr(table.summary, key)) for table in by_seed])
        for key, heading, write in _QUANTITIES
        if not (result.method and key == "fraction_layers_shared")
    ]
