"""The page of a growing model, one file: what it knows, what it costs, how it learned, and how to use it next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lasem.errors import quoted
from lasem.metrics import Run
from lasem.metrics.measures import mean
from lasem.records import EpochRecord, EvaluationRecord, Record, TaskRecord, of_kind
from lasem.report.experiment import flat_settings
from lasem.report.frame import (
    Cell,
    Frame,
    check_place,
    columns_of,
    keep_together,
    name_cell,
    number_cell,
    render,
    write_text,
)
from lasem.report.numbers import DASH, count, display_name, fixed, percent, short_count

if TYPE_CHECKING:
    from lasem.learner import ModelOverview
    from lasem.report.figures import Drawing


def write_model(page: Path, overview: ModelOverview, records: Mapping[str, Sequence[Record]]) -> Path:
    """Write a growing model's page, which opens without a network, from what its ``show`` and ``records`` return.

    Raises:
        StorageError: if the place is in the model's folder or another file's, or cannot be written.
    """
    check_place(page, overview.directory)
    settings = dict(overview.settings)
    network = {key: value for key, value in settings.pop("net").items() if key != "blocks"}
    if "origin" in network:
        network = {"backbone": f"{network.pop('origin')}; stored once, for all tasks", **network}
    method = settings.get("method", {}).get("name")
    tested = [task.test_accuracy for task in overview.tasks if task.test_accuracy is not None]
    text = render(
        "model.html.jinja",
        name=display_name(Path(overview.directory).resolve().name),
        progress="" if overview.unfinished is None else f"Task '{display_name(overview.unfinished)}' is not finished.",
        verdict=keep_together(_verdict(overview, tested)),
        kicker=method or ", ".join(str(settings[part]["name"]) for part in ("sharing", "search", "protect")),
        chooses=method is None,
        overview=overview,
        size=f"{short_count(overview.num_bytes)}B",
        tested=tested,
        test_accuracy=mean(tested),
        valid_accuracy=mean([task.valid_accuracy for task in overview.tasks]),
        num_own=sum(task.num_parameters for task in overview.tasks),
        frontiers={name: said for name, of in records.items() if (said := _frontier(of))},
        tasks=_tasks(overview, chooses=method is None),
        figures=_figures(overview, records, chooses=method is None),
        network={key: value for key, value in flat_settings(network).items() if value not in (None, [])},
        config=yaml.safe_dump(settings, sort_keys=False, allow_unicode=True),
        environment={"command": _commands(overview)} if overview.tasks else {},
        again="Use it" if overview.tasks else "",
    )
    return write_text(page, text)


def _verdict(overview: ModelOverview, tested: Sequence[float]) -> str:
    num = len(overview.tasks)
    if not num:
        return "This model has not learned a task yet."
    sentence = f"One model answers for {num} task{'s' if num != 1 else ''}"
    if not tested:
        valid = mean([task.valid_accuracy for task in overview.tasks])
        sentence += f", {percent(valid)} % of the validation images rightly"
    else:
        which = "" if len(tested) == num else f" of those {len(tested)} that have any"
        sentence += (
            f"; when it had learned them, {percent(mean(tested))} % of the test images{which} were answered rightly"
        )
    kept = "No later task changes an earlier answer." if overview.keeps else "Later tasks may change earlier answers."
    parameters = f"It holds {short_count(overview.num_parameters)} parameters in {short_count(overview.num_bytes)}B"
    shared = f", {short_count(overview.num_shared_parameters)} of them shared" if num > 1 else ""
    return f"{sentence}. {parameters}{shared}. {kept}"


def _tasks(overview: ModelOverview, *, chooses: bool) -> Frame:
    optional = {"Now %": overview.keeps, "Layers": chooses}
    headings = ("#", "Task", "Classes", "Images", "Layers", "Valid %", "Test %", "Now %", "Temperature")
    columns = columns_of(*headings, "Own parameters", "Bytes", texts=("Task", "Layers"))
    shown = [n for n, column in enumerate(columns) if optional.get(column.heading, True)]
    rows = []
    for number, task in enumerate(overview.tasks, start=1):
        tested = task.test_accuracy, task.test_accuracy_now
        cells = (
            Cell(text=str(number), number=number),
            name_cell(task.name, 60),
            number_cell(len(task.classes), count),
            number_cell(task.num_train, count) if task.num_train else Cell(text=DASH),
            Cell(text=task.configuration or DASH, configurations=(task.configuration,)),
            number_cell(task.valid_accuracy, percent),
            *(number_cell(math.nan if accuracy is None else accuracy, percent) for accuracy in tested),
            number_cell(task.temperature, fixed(2)),
            number_cell(task.num_parameters, count),
            number_cell(task.num_bytes, count),
        )
        rows.append(tuple(cells[n] for n in shown))
    return Frame(columns=tuple(columns[n] for n in shown), rows=tuple(rows))


def _frontier(records: Sequence[Record]) -> str:
    """Say what other choices of layers would bring and cost, as ``lasem frontier`` does; empty if it is not known."""
    record = next(of_kind(records, TaskRecord), None)
    if record is None or not record.frontier or not record.frontier_owned:
        return ""
    costs = record.frontier_owned
    offers = ((display_name(name, 80), share, costs.get(name, 0)) for name, share in record.frontier.items())
    return ", ".join(f"{name} {percent(share)} % ({count(owned)})" for name, share, owned in offers)


def _figures(
    overview: ModelOverview, records: Mapping[str, Sequence[Record]], *, chooses: bool
) -> dict[str, Drawing | None]:
    from lasem.report.figures.heatmap import draw_layer_probabilities, draw_transfer_map
    from lasem.report.figures.lines import draw_accuracy_over_time, draw_probabilities

    run = _as_run(overview, records)
    recorded = any(run.epochs(task.task) for task in run.tasks)
    drawn: dict[str, Drawing | None] = {"layers": draw_transfer_map(run) if chooses else None}
    drawn["time"] = draw_accuracy_over_time(run) if recorded else None
    drawn["search"] = (draw_layer_probabilities(run) or draw_probabilities(run)) if recorded and chooses else None
    return drawn


def _as_run(overview: ModelOverview, records: Mapping[str, Sequence[Record]]) -> Run:
    """Return what is known of the tasks as records of a run; of tasks without records what the overview says."""
    found: list[Record] = []
    tests: dict[str, float] = {}
    for index, task in enumerate(overview.tasks):
        known = TaskRecord(
            task=task.name,
            index=index,
            classes=task.classes,
            configuration=task.configuration,
            configurations=(task.configuration,),
            best_epoch=task.num_epochs,
            num_epochs=task.num_epochs,
            commit_epoch=None,
            valid_accuracy=task.valid_accuracy,
            peak_accuracy=task.test_accuracy or 0.0,
            parameters_added=task.num_parameters,
            parameters_shared=overview.num_shared_parameters,
            parameters_total=overview.num_parameters,
        )
        kept = records.get(task.name, ())  # of a model's folder that may come from a stranger
        found += [replace(record, task=task.name) for record in of_kind(kept, EpochRecord)]
        found += [replace(r, task=task.name, index=index) for r in [known, *of_kind(kept, TaskRecord)][-1:]]
        if task.test_accuracy is not None:
            tests = {**(tests if overview.keeps else {}), task.name: task.test_accuracy}
            found.append(EvaluationRecord(after_task=task.name, accuracies=tests))
    return Run(0, tuple(found))


def _commands(overview: ModelOverview) -> str:
    model, task = overview.directory, overview.tasks[-1].name
    lines: list[Any] = [
        ("predict", model, "--task", task, "IMAGES"),
        ("evaluate", model, "--task", task, "IMAGES", "--html", "page.html"),
        ("export", model, "--task", task, "--format", "onnx"),
        ("learn", model, "--resume") if overview.unfinished else ("learn", model, "--task", "NEW", "--train", "IMAGES"),
        ("forget", model, "--task", task),
    ]
    return "\n".join(quoted("lasem", *words) for words in lines)
