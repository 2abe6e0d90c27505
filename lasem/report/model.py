"""The pages of a growing model, one file each: the model with its tasks, and an evaluation with its surest mistakes."""

import io
import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lasem.errors import quoted
from lasem.metrics import Run, mean
from lasem.records import EpochRecord, EvaluationRecord, Record, TaskRecord, of_kind
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
from lasem.settings import flat, to_yaml

if TYPE_CHECKING:
    from torch import Tensor

    from lasem.learner import Evaluation, ModelOverview
    from lasem.report.figures import Drawing

PICTURES = 36
"""Mistakes that a page shows."""
_PAIRS = 100
"""Pairs of classes that a page lists."""
_SIDE = 192
"""Pixels of a picture's longer side; larger ones are reduced."""


def write_model(page: Path, overview: "ModelOverview", records: Mapping[str, Sequence[Record]]) -> Path:
    """Write a model's page, which opens without a network, from what its ``show`` and ``records`` return.

    StorageError if the place is in the model's folder or another file's, or cannot be written.
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
        tasks=tasks_frame(overview),
        figures=_figures(overview, records, chooses=method is None),
        network={key: value for key, value in flat(network).items() if value not in (None, [])},
        config=to_yaml(settings),
        environment={"command": _commands(overview)} if overview.tasks else {},
        again="Use it" if overview.tasks else "",
    )
    return write_text(page, text)


def _verdict(overview: "ModelOverview", tested: Sequence[float]) -> str:
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


def tasks_frame(overview: "ModelOverview") -> Frame:
    """Return a row for each task of a model."""
    optional = {"Now %": overview.keeps, "Layers": "method" not in overview.settings}
    headings = ("#", "Task", "Classes", overview.reads.capitalize(), "Layers", "Valid %", "Test %", "Now %")
    rest = ("Temperature", "Own parameters", "Bytes")
    columns = columns_of(*headings, *rest, texts=("Task", "Layers"), of_pages=("#", "Temperature"))
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
    owned, computed = record.frontier_owned, record.frontier_computed or {}
    said = []
    for name, share in record.frontier.items():
        adds = f"; {computed[name] / 1e6:.1f}" if name in computed else ""
        said.append(f"{display_name(name, 80)} {percent(share)} % ({count(owned.get(name, 0))}{adds})")
    return ", ".join(said)


def _figures(
    overview: "ModelOverview", records: Mapping[str, Sequence[Record]], *, chooses: bool
) -> "dict[str, Drawing | None]":
    from lasem.report.figures.heatmap import draw_layer_probabilities, draw_transfer_map
    from lasem.report.figures.lines import draw_accuracy_over_time, draw_probabilities

    run = _as_run(overview, records)
    recorded = any(run.epochs(task.task) for task in run.tasks)
    drawn: dict[str, Drawing | None] = {"layers": draw_transfer_map(run) if chooses else None}
    drawn["time"] = draw_accuracy_over_time(run) if recorded else None
    drawn["search"] = (draw_layer_probabilities(run) or draw_probabilities(run)) if recorded and chooses else None
    return drawn


def _as_run(overview: "ModelOverview", records: Mapping[str, Sequence[Record]]) -> Run:
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


def _commands(overview: "ModelOverview") -> str:
    model, task = overview.directory, overview.tasks[-1].name
    lines: list[Any] = [
        ("predict", model, "--task", task, "IMAGES"),
        ("evaluate", model, "--task", task, "IMAGES", "--html", "page.html"),
        ("export", model, "--task", task, "--format", "onnx"),
        ("learn", model, "--resume") if overview.unfinished else ("learn", model, "--task", "NEW", "--train", "IMAGES"),
        ("forget", model, "--task", task),
    ]
    return "\n".join(quoted("lasem", *words) for words in lines)


def write_evaluation(
    page: Path, result: "Evaluation", *, task: str, model: str, images: str, command: Sequence[str]
) -> Path:
    """Write what an evaluation found as a page that opens without a network; errors of ``write_model``.

    It shows as many mistakes as have pictures, at most ``PICTURES``; ``images`` is where the images are from.
    """
    from lasem.report.figures.bars import draw_calibration
    from lasem.report.figures.heatmap import draw_confusion

    check_place(page, model)
    shown = result.mistakes[:PICTURES]
    text = render(
        "evaluation.html.jinja",
        name=display_name(task),
        progress="",
        verdict=keep_together(_result_in_words(result)),
        model=display_name(model),
        images=display_name(images),
        result=result,
        mean_accuracy=sum(right / num for num, right in result.by_class.values()) / len(result.by_class),
        mistakes=[(mistake, None if mistake.picture is None else _address(mistake.picture)) for mistake in shown],
        classes=_classes(result),
        pairs=_pairs(result),
        confusion=draw_confusion(result.classes, result.confusion),
        calibration=draw_calibration(result.calibration),
        environment={"command": quoted(*command)},
    )
    return write_text(page, text)


def _result_in_words(result: "Evaluation") -> str:
    right, num = result.num_right, result.num_images
    if not result.mistakes:
        return f"All {num:,} images are answered correctly." if num > 1 else "The one image is answered correctly."
    sentence = f"Of {num:,} images {right:,} are answered correctly, {percent(result.accuracy)} %"
    name, answer, times = result.confused[0]
    if times > 1:
        most = f"; most often '{display_name(name, 40)}' is taken for '{display_name(answer, 40)}' ({times:,} times)"
        sentence += most
    return f"{sentence}."


def _classes(result: "Evaluation") -> Frame:
    taken: dict[str, tuple[str, int]] = {}
    for name, answer, times in result.confused:
        taken.setdefault(name, (answer, times))
    rows = []
    for number, name in enumerate(result.classes, start=1):
        if name in result.by_class:
            num, right = result.by_class[name]
            answer, times = taken.get(name, ("", 0))
            most = f"{display_name(answer, 40)} ({times:,})" if times else DASH
            numbers = (number_cell(num, count), number_cell(right, count), number_cell(right / num, percent))
            first = Cell(text=str(number), number=number)
            rows.append((first, name_cell(name, 60), *numbers, Cell(text=most)))
    headings = ("#", "Class", "Images", "Right", "Right %", "Most often taken for")
    return Frame(columns=columns_of(*headings, texts=(headings[1], headings[-1])), rows=tuple(rows))


def _pairs(result: "Evaluation") -> Frame:
    texts = ("Class", "Answered as")
    rows = []
    for name, answer, times in result.confused[:_PAIRS]:
        share = number_cell(times / result.by_class[name][0], percent)
        rows.append((name_cell(name, 60), name_cell(answer, 48), number_cell(times, count), share))
    return Frame(columns=columns_of(*texts, "Images", "% of the class", texts=texts), rows=tuple(rows))


def _address(picture: "Tensor") -> str:
    """Return a picture as an address that holds it: small ones to the pixel, of large ones a thumbnail."""
    from PIL import Image

    pixels = picture.permute(1, 2, 0).contiguous().numpy()
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    kind = "PNG" if max(image.size) <= 64 else "JPEG"
    image.thumbnail((_SIDE, _SIDE))
    data = io.BytesIO()
    image.save(data, kind)
    return f"data:image/{kind.lower()};base64,{b64encode(data.getvalue()).decode()}"
