"""Commands of a growing model: learn, predict, serve, evaluate, show, frontier, forget, push, pull and export."""

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from lasem.cli.choices import MODEL, layered, nested
from lasem.cli.command import Typed
from lasem.cli.main import FAILURE, say
from lasem.cli.run import failing, print_table
from lasem.errors import ConfigError, DataError, TaskError, csv_text, nearest, printable, quoted
from lasem.report.numbers import display_name, percent
from lasem.settings import Range

if TYPE_CHECKING:
    from lasem.learner import Evaluation, ModelOverview

_SHOWN = 10
"""Mistakes, and pairs of classes, that a terminal shows."""


def learn(
    typed: Typed,
    model: str,
    *,
    task: str | None = None,
    train: Path | None = None,
    valid: Path | None = None,
    test: Path | None = None,
    image_column: str = "image",
    label_column: str = "label",
    text_column: str | None = None,
    image_size: Annotated[int, Range(least=1, most=8192)] | None = None,
    channels: Literal[1, 3] | None = None,
    seed: int | None = None,
    update: bool = False,
    resume: bool = False,
    restart: bool = False,
    skip_damaged: bool = False,
    wait: Annotated[float, Range(least=0)] = 0,
    checkpoint_seconds: Annotated[float, Range(least=0)] = 30,
    watch: tuple[str, ...] = (),
    quiet: bool = False,
    **settings: Annotated[str, MODEL],
) -> int:
    """Add a task to the model in a folder; the first one makes the model.

    Args:
        train: a folder CLASS/*.png, parquet, or texts (--text-column).
        valid: images to stop by (default: a share of --train).
        test: images that only measure.
        image_size: side of a new model's images (default: that of the first ones).
        channels: of a new model, 1 for grey or 3 for colour (default: as the first images).
        seed: of a new model's random numbers (default: 0).
        update: learn a new version of a task, from all its images.
        resume: go on with the task that was interrupted.
        restart: throw away what was learned of an unfinished task.
        skip_damaged: leave out images that cannot be decoded.

    Examples:
        lasem learn model --task cats --train photos/cats    photos/cats/CLASS/*.png
        lasem learn model --resume
    """
    import torch

    from lasem.cli.progress import EpochLines, make_observer
    from lasem.data.labelled import and_left_out
    from lasem.experiments import ExperimentConfig
    from lasem.experiments.parts import resolve
    from lasem.learner import GrowingModel, Source
    from lasem.learner.watching import watched
    from lasem.methods import Branch

    if not resume and (task is None or train is None):
        missing = "--task" if task is None else "--train"
        raise ConfigError(f"Expected {missing}; got none. See lasem learn --help.")
    held = GrowingModel(model).settings(begun=resume)
    above = nested(settings)
    if held is None and train is not None and text_column is None:
        _take_backbone(above, train, image_size, image_column, label_column)
    if held is None and "search" in above:  # its settings alone do not choose another one
        above = MODEL.started(above)
    stored = _stored(held) if held else {"protect": {"name": Branch.name}}
    below = {k: v for k, v in stored.items() if k in ("protect", "method")} if "preset" in above else stored
    config = ExperimentConfig.from_plain(layered(below, above))
    if config.threads:
        torch.set_num_threads(config.threads)
    given: dict[str, Any] = {"image_size": image_size, "channels": channels, "seed": seed}
    typed_parts = resolve(above) if "name" in above.get("method", {}) else above
    for part in set(MODEL.parts) & set(config.parts):
        if part in typed_parts or ("preset" in above and (held is None or part != "net")):
            given[part] = getattr(config, part)
    if held and "method" in held and "name" in above.get("method", {}) and config.method is None:
        raise ConfigError(
            f"The model in {model} was made with method = {held['method']['name']}; got {above['method']['name']}. "
            f"Leave method out, or begin another model."
        )
    growing = GrowingModel(model, **given, device=config.device, checkpoint_seconds=checkpoint_seconds)

    def images(path: Path | None) -> Source | None:
        named: dict[str, Any] = {"image_column": image_column, "label_column": label_column}
        named |= {"text_column": text_column, "skip_damaged": skip_damaged}
        return None if path is None else Source(path=str(path), **named)

    shown = make_observer(quiet=quiet)
    again = quoted(*(word for word in typed if word != "--restart"))
    observer = watched(watch, EpochLines(shown, model, config.training.epochs, again))
    with shown.explained():
        learned = growing.learn(
            task,
            images(train),
            valid=images(valid),
            test=images(test),
            update=update,
            resume=resume,
            restart=restart,
            wait=wait,
            observer=observer,
        )
    measured = f"valid {percent(learned.valid_accuracy)} %"
    measured += "" if learned.test_accuracy is None else f", test {percent(learned.test_accuracy)} %"
    say(
        f"{learned.name}: {learned.configuration} ({learned.layers}), {measured}, "
        f"{len(learned.classes)} classes, {learned.num_parameters:,} parameters of its own"
        f"{and_left_out(learned.left_out)}"
    )
    return 0


def predict(
    model: str,
    *images: str,
    task: str | None = None,
    tasks: str | None = None,
    text: str | None = None,
    text_column: str = "text",
    top: Annotated[int, Range(least=1)] = 1,
    format: Literal["csv", "jsonl"] = "csv",
    device: str = "cpu",
) -> int:
    """Write the likeliest class and its probability for each image, or for each text.

    Images and folders that cannot be read are named on stderr, and the others go on.

    Args:
        images: files, folders, or - for a list on standard input; of texts, files with one in each line, tables with
            --text-column, or - for lines on standard input.
        task: the task's name; or all, for the answers of all tasks.
        tasks: CSV file that has in each line an image, or a text, and the name of its task; - for standard input.
        text: one text.
        top: the number of likeliest classes.
        format: csv, or jsonl for JSON lines. In CSV an apostrophe precedes a name that a spreadsheet would compute.

    Examples:
        lasem predict model --task cats new/*.png
        lasem predict model --task cats folder --top 3 --format jsonl
        lasem predict model --task all new
        lasem predict model --tasks questions.csv
        find . -name '*.jpg' | lasem predict model --task cats -
        lasem predict model --task mood --text "What a film!"
        lasem predict model --task mood reviews.csv --text-column review
    """
    from lasem.learner import GrowingModel

    num_skipped = 0

    def skip(_: str, error: DataError) -> None:
        nonlocal num_skipped
        num_skipped += 1
        say(f"lasem: {printable(str(error))}", error=True)

    if (task is None) == (tasks is None):
        raise ConfigError(f"Expected --task or --tasks; got {'none' if task is None else 'both'}.")
    if tasks is not None and (images or text is not None):
        raise ConfigError("The file of --tasks names the images, or has the texts; leave others out.")
    if tasks is None and not images and text is None:
        raise ConfigError("Expected IMAGES..., files, folders, or - for a list, or --text; got none.")
    growing = GrowingModel(model, device=device)
    unit = growing.reads.removesuffix("s")
    if unit == "image" and text is not None:
        raise ConfigError(f"The model in {model} answers for images; leave --text out.")
    known, notes = growing.tasks, list[str]()
    how: dict[str, Any] = {"top": top, "skip": skip, "note": notes.append}
    places = _places(images) if unit == "image" else _texts(text, images, text_column, skip)
    if tasks is not None:
        questions = _questions(tasks, unit, known)
        answers, asked = growing.predict_many(questions, **how), {name for _, name in questions}
    elif task == "all" and task not in known:
        answers, asked = growing.predict_all(places, **how), set(known)
    else:
        answers, asked = growing.predict(str(task), places, **how), {str(task)}
    several = tasks is not None or task not in asked
    table = csv.writer(sys.stdout, lineterminator="\n")
    most, first = min(top, max(len(known[name]) for name in asked)), True
    for answer in answers:
        if format == "jsonl":
            named = {unit: answer.image, **({"task": answer.task} if several else {})}
            print(json.dumps({**named, "predictions": answer.likeliest}))
            continue
        pairs = list(zip(answer.classes, answer.probabilities, strict=True))
        if first:
            more = [f"{what}_{k}" for k in range(2, most + 1) for what in ("class", "probability")]
            table.writerow([unit, *(["task"] if several else []), "class", "probability", *more])
        cells = [cell for name, p in pairs for cell in (csv_text(name), f"{p:.6f}")]
        fill = [""] * (2 * (most - len(pairs)))  # of a task with fewer classes than another one
        table.writerow([csv_text(answer.image), *([csv_text(answer.task)] if several else []), *cells, *fill])
        first = False
    for note in notes:
        say(f"lasem: {note}", error=True)
    if num_skipped:
        say(f"lasem: {num_skipped} could not be read.", error=True)
    return FAILURE if num_skipped else 0


def serve(
    model: str,
    *,
    host: str = "127.0.0.1",
    port: Annotated[int, Range(least=0, most=65535)] = 8000,
    wait_ms: Annotated[float, Range(least=0)] = 5,
    batch: Annotated[int, Range(least=1)] = 64,
    queue: Annotated[int, Range(least=1)] = 1024,
    max_bytes: Annotated[int, Range(least=1)] = 2**25,
    threads: Annotated[int, Range(least=1)] | None = None,
    device: str = "cpu",
) -> int:
    """Answer over HTTP, by all tasks, until Ctrl-C. Tasks that are learned or forgotten meanwhile are noticed.

    POST /predict/TASK (/predict: all tasks) takes an image, files as multipart, or JSON, with ?top=K; GET /tasks,
    /health and /metrics. Who can reach the address can ask: there are no passwords.

    Args:
        host: the address to listen at; others than this machine reach it only if another one is given.
        port: 0 for any that is free.
        wait_ms: milliseconds that a question waits for others to be answered with.
        batch: images, or texts, that are enough to wait no longer.
        queue: images, or texts, that may wait; more are refused.
        max_bytes: of the body of a request.
        threads: of torch (default: its own).

    Examples:
        lasem serve model --port 8000
        curl --data-binary @cat.jpg 'localhost:8000/predict/cats?top=3'
        curl -F file=@a.jpg -F file=@b.jpg localhost:8000/predict
        curl --json '{"texts": ["What a film!"]}' localhost:8000/predict/mood
    """
    import asyncio
    import socket

    from lasem.learner import GrowingModel
    from lasem.learner.serving import INSTALL, Limits, Server

    try:
        import uvicorn
    except ImportError as error:
        raise ConfigError(INSTALL) from error
    limits = Limits(wait_ms=wait_ms, batch=batch, queue=queue, max_bytes=max_bytes)
    growing = GrowingModel(model, device=device)
    server = Server(growing, limits, threads=threads, log=lambda text: say(text, error=True))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]
        raise ConfigError(f"Cannot listen at {host}, port {port}: {reason}. Choose others.") from error
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio does so only where the protocol is named
    names = list(growing.tasks)
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    at = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
    say(f"{at} answers for {', '.join(names[:_SHOWN]) or 'no task yet'}{more}. Ctrl-C ends it.")
    sys.stdout.flush()
    how: dict[str, Any] = {"log_config": None, "log_level": "critical", "access_log": False, "lifespan": "off"}
    serving = uvicorn.Server(uvicorn.Config(server.application(), timeout_graceful_shutdown=10, **how))
    with suppress(KeyboardInterrupt, asyncio.CancelledError):
        serving.run(sockets=[listening])
    return 0


def evaluate(
    typed: Typed,
    model: str,
    path: str,
    *,
    task: str,
    image_column: str = "image",
    label_column: str = "label",
    text_column: str | None = None,
    skip_damaged: bool = False,
    html: Path | None = None,
    json: bool = False,
    device: str = "cpu",
) -> int:
    """Measure how many labelled images the model answers correctly now, and show its mistakes.

    Of data with splits, the test split counts.

    Args:
        path: labelled images, a folder CLASS/*.png or a parquet file or folder; or texts, a table with --text-column.
        skip_damaged: leave out images that cannot be decoded.
        html: write a page with the pictures of the surest mistakes.
        json: write JSON, with all mistakes.

    Examples:
        lasem evaluate model --task cats photos/test
        lasem evaluate model --task cats photos/test --html cats.html
        lasem evaluate model --task cats test.parquet --json
    """
    from lasem.data.labelled import and_left_out
    from lasem.learner import GrowingModel, Source

    pictures = 0
    if html is not None:
        from lasem.report import check_place
        from lasem.report.model import PICTURES, write_evaluation

        check_place(html, model)
        pictures = PICTURES
    columns: dict[str, Any] = {"image_column": image_column, "label_column": label_column, "text_column": text_column}
    growing = GrowingModel(model, device=device)
    source = Source(path=path, skip_damaged=skip_damaged, **columns)
    result = growing.evaluate(task, source, pictures=pictures)
    if html is not None:
        with failing():
            write_evaluation(html, result, task=task, model=model, images=path, command=typed)
    if json:
        plain = asdict(replace(result, mistakes=()))
        _print_json(
            {
                "task": task,
                "accuracy": result.accuracy,
                "num_images": result.num_images,
                "num_right": result.num_right,
                "calibration_error": result.calibration_error,
                "left_out": result.left_out,
                "classes": {name: {"num_images": n, "num_right": k} for name, (n, k) in result.by_class.items()},
                "confusion": {"classes": plain["classes"], "num_images": plain["confusion"]},
                "mistakes": [
                    {"image": m.image, "class": m.label, "answer": m.answer, "probability": round(m.probability, 6)}
                    for m in result.mistakes
                ],
                "calibration": plain["calibration"],
            }
        )
        return 0
    measured = f"{percent(result.accuracy)} % ({result.num_right} of {result.num_images} {growing.reads})"
    say(f"{task}: {measured}{and_left_out(result.left_out)}")
    width = max(len(printable(name)) for name in result.by_class)
    for name, (count, right) in result.by_class.items():
        say(f"  {printable(name):{width}}  {percent(right / count):>5} % ({right} of {count})")
    say(f"expected calibration error: {percent(result.calibration_error)} % (15 bins of probability)")
    _print_mistakes(result)
    if html is not None:
        say(f"Page: {html}")
    return 0


def show(model: str, *, json: bool = False) -> int:
    """List the tasks of a model.

    The table has the layers that each task transfers (T) or learned for itself (S), how accurate it was on validation
    and test images when it was learned and is on the test images now, and what it costs.

    Args:
        json: write everything as JSON.

    Examples:
        lasem show model
        lasem show model --json
    """
    from lasem.learner import GrowingModel

    overview = GrowingModel(model).show()
    if json:
        _print_json(overview.to_plain())
    else:
        _print_overview(overview)
    return 0


def frontier(model: str, *, task: str, json: bool = False) -> int:
    """Show what other choices of layers would have brought a task, and what they would cost, without another search.

    Each row is more accurate than all that own less. Accuracies are of images outside of the training, while the search
    by evidence trained all choices at once for a short time: they say which choice is better, not how good it becomes.
    Multiply-adds, in millions for an image, are those from the first own layer on: layers before it are computed once
    for all tasks.

    Args:
        json: write everything as JSON.

    Examples:
        lasem frontier model --task cats
    """
    from rich.table import Table

    from lasem.learner import GrowingModel

    growing = GrowingModel(model)
    record = growing.task_record(task)
    if record is None or not record.frontier or not record.frontier_owned:
        raise ConfigError(
            f"Expected a task whose layers were chosen by evidence (--search evidence); '{task}' is none. lasem show "
            f"{model} lists its layers."
        )
    computed = record.frontier_computed or {}
    offers = [
        (name, record.frontier_owned.get(name, 0), computed.get(name), share) for name, share in record.frontier.items()
    ]
    if json:
        names = ("layers", "owned", "multiply_adds", "accuracy")
        _print_json([dict(zip(names, offer, strict=True)) for offer in offers])
        return 0
    table = Table(show_edge=False, header_style="")
    table.add_column("layers")
    for heading in ("owned numbers", "million multiply-adds", "accuracy", ""):
        table.add_column(heading, justify="right")
    for name, owned, adds, share in offers:
        chosen = "chosen" if name == record.configuration else ""
        millions = "-" if adds is None else f"{adds / 1e6:.1f}"
        table.add_row(name, f"{owned:,}", millions, f"{percent(share)} %", chosen)
    print_table(table)
    if record.configuration not in record.frontier:
        say(f"The task has {record.configuration}, which was better when it was trained by itself.")
    if (growing.settings() or {})["sharing"].get("train_shared") is False:  # else they are layers of earlier tasks
        say(
            "To take another: lasem learn NEW_MODEL --search fixed --search.configuration LAYERS, with the task's "
            "images."
        )
    return 0


def forget(model: str, *, task: str, wait: Annotated[float, Range(least=0)] = 0) -> int:
    """Remove a task, and the shared knowledge that no other task uses; the others answer as before.

    Of a task or an update that is not finished, remove what was learned so far. It cannot be undone.

    Examples:
        lasem forget model --task cats
    """
    from lasem.learner import GrowingModel

    learned = GrowingModel(model).forget(task, wait=wait)
    say(f"{task}: {'forgotten' if learned else 'what was not finished is forgotten'}")
    return 0


def export(model: str, *, task: str, format: Literal["onnx", "torch", "safetensors", "peft"], out: str = ".") -> int:
    """Write one task as a network that needs no lasem.

    A page of JSON next to it has the classes' names and what the network takes: pixels divided by 255, or on the scale
    of the floats that the task learned from, which it standardises itself; or a text's token ids, whose tokenizer is
    written, too.

    Args:
        format: of the file.
        out: a file, or a folder (no ending) for NAME.onnx.

    Examples:
        lasem export model --task cats --format onnx --out cats.onnx      runs in onnxruntime
        lasem export model --task cats --format torch --out cats.pt2      torch.export.load reads it
        lasem export model --task cats --format safetensors --out folder
        lasem export model --task mood --format peft                      a folder that PEFT reads
    """
    from lasem.learner import GrowingModel

    for path in GrowingModel(model).export(task, format, out):
        say(str(path))
    return 0


def push(model: str, repo: str, *, licence: str | None = None, public: bool = False) -> int:
    """Share a model on the Hugging Face hub, or in a folder: its own files, and a card (README.md) that describes it.

    Images, the state of training and other files are never pushed. The hub asks who you are: hf auth login.

    Args:
        repo: USER/NAME on the hub; or a folder, such as ./shared.
        licence: what the card says of it, such as apache-2.0 (default: that none was given).
        public: a new repository can be read by everybody.

    Examples:
        lasem push model anna/flowers --licence apache-2.0
        lasem push model ./shared
    """
    from lasem.learner import push

    say(push(model, repo, licence=licence, public=public))
    return 0


def pull(repo: str, model: str, *, revision: str | None = None) -> int:
    """Fetch a model into a new folder, which is there whole or not at all. Every file is checked; no code is run.

    Args:
        repo: USER/NAME on the hub; or a folder, such as ./shared.
        revision: a branch, tag or commit of the hub (default: its main branch).

    Examples:
        lasem pull anna/flowers model
    """
    from lasem.learner import pull

    names = list(pull(repo, model, revision=revision).tasks)
    say(f"{model} has {len(names)} task{'' if len(names) == 1 else 's'}: {', '.join(names)}")
    return 0


def _take_backbone(above: dict[str, Any], train: Path, side: int | None, image_column: str, label_column: str) -> None:
    """Name the pretrained network in the settings of a new model, where nothing else is chosen and it suits images."""
    from lasem.experiments.parts import resolve
    from lasem.learner import Source
    from lasem.nets.net import AUTO, pretrained_for

    net = above.get("net", {})
    if set(net) - {"name"} or net.get("name", AUTO) != AUTO or "preset" in above or "method" in resolve(above):
        return
    source = Source(path=str(train), image_column=image_column, label_column=label_column)
    found, _ = pretrained_for(side or max(max(sides) for sides in source.first_sizes()))
    if found is not None:
        above["net"] = {"name": found.name}


def _stored(held: dict[str, Any]) -> dict[str, Any]:
    """A model's settings by part, but for the network and a user's classes: a folder never names code to import."""
    kept = [part for part in MODEL.parts if part in held and part != "net"]
    parts = {part: held[part] for part in kept if "." not in str(held[part].get("name"))}
    return {part: {k: v for k, v in entry.items() if v is not None or k != "name"} for part, entry in parts.items()}


def _print_mistakes(result: "Evaluation") -> None:
    """Print the confusion matrix if it fits, else the classes most confused; and the surest mistakes."""
    if not result.mistakes:
        return
    digits = len(str(max(len(result.classes), *map(max, result.confusion)))) + 1
    room = 80 - digits * len(result.classes) - 6
    if room >= min(12, max(map(len, result.by_class))):
        say("\nconfusion matrix: a row for each class, a column for each answer")
        width = min(room, max(map(len, map(printable, result.by_class))))
        numbers = range(1, len(result.classes) + 1)
        say(f"  {'':{width + 3}}{''.join(f'{number:{digits}}' for number in numbers)}")
        for number, name, row in zip(numbers, result.classes, result.confusion, strict=True):
            if sum(row):
                cells = "".join(f"{count or '.':>{digits}}" for count in row)
                say(f"  {number:2} {display_name(name, width):{width}}{cells}")
    else:
        most = result.confused[:_SHOWN]
        say(f"\nclasses confused most often ({len(most)} of {len(result.confused)} pairs)")
        for name, answer, count in most:
            say(f"  '{name}' answered as '{answer}': {count} of {result.by_class[name][0]}")
    surest = result.mistakes[:_SHOWN]
    say(f"\nthe surest mistakes ({len(surest)} of {len(result.mistakes)})")
    for mistake in surest:
        image = display_name(mistake.image.strip(), 160)
        say(f"  {percent(mistake.probability):>5} %  {image}: '{mistake.label}' answered as '{mistake.answer}'")


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=1))


def _places(words: Sequence[str]) -> Iterator[str]:
    for word in words:
        if word == "-":
            for line in sys.stdin.buffer:
                if name := os.fsdecode(line.rstrip(b"\r\n")):
                    yield name
        else:
            yield word


def _questions(file: str, unit: str, known: Iterable[str]) -> list[tuple[str, str]]:
    """The images, or texts, and their tasks in the lines of a CSV file."""
    from lasem.data.readers import existing_path

    data = sys.stdin.buffer.read() if file == "-" else existing_path(file).read_bytes()
    rows = csv.reader(io.StringIO(os.fsdecode(data.removeprefix(b"\xef\xbb\xbf")), newline=""), skipinitialspace=True)
    questions, names = list[tuple[str, str]](), set(known)
    try:
        for row in rows:
            where = f"line {rows.line_num} of {file}"
            if not row or (row == [unit, "task"] and not questions):
                continue
            if len(row) != 2:
                raise DataError(
                    f'Expected {unit},task in {where}; got {len(row)} fields. Write "..." around one with commas.'
                )
            if row[1] not in names:
                raise TaskError(f"Expected a learned task in {where}; got '{row[1]}'.{nearest(row[1], names)}")
            questions.append((row[0], row[1]))
    except csv.Error as error:
        raise DataError(f"Expected {unit},task in each line of {file}; line {rows.line_num} has {error}.") from error
    if not questions:
        raise DataError(f"Expected {unit},task in each line of {file}; there are none.")
    return questions


def _texts(
    text: str | None, words: Sequence[str], column: str, skip: Callable[[str, DataError], None]
) -> Iterator[str]:
    """The texts that are given as they are, in files, and on standard input."""
    from lasem.data.readers import existing_path
    from lasem.data.texts import texts_in

    if text is not None:
        yield text
    for word in words:
        try:
            lines = (line.decode(errors="replace").rstrip("\r\n") for line in sys.stdin.buffer)
            for number, found in enumerate(lines if word == "-" else texts_in(existing_path(word), column), 1):
                if found.strip():
                    yield found
                elif word != "-":
                    skip(word, DataError(f"Expected a text in each row of {word}; row {number} has none."))
        except DataError as error:
            skip(word, error)


def _print_overview(overview: "ModelOverview") -> None:
    from lasem.report.model import tasks_frame

    print_table(tasks_frame(overview).console(""))
    channels, height, width = overview.image_shape
    colour = {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")
    size = f"images {height}x{width} {colour}" if overview.reads == "images" else f"texts of at most {width} tokens"
    count = len(overview.tasks)
    made = {
        part: str(value["name"])
        for part, value in overview.settings.items()
        if part in ("method", "sharing", "search", "protect")
    }
    method = "method {method}" if "method" in made else "{sharing}, {search}, protect {protect}"
    layers = f"{count} task{'s' if count != 1 else ''}, {overview.depth} layers"
    say("Accuracies in %: valid and test when the task was learned, now on the same test images.")
    origin = overview.settings["net"].get("origin")
    say(f"\nBackbone: {origin}." if origin else "")
    say(f"{layers}, {size}; {method.format(**made)}")
    say(
        f"{overview.num_shared_parameters:,} parameters shared, {overview.num_parameters:,} in all, "
        f"{overview.num_bytes:,} bytes in {overview.directory}"
    )
    if overview.prior:
        names = overview.layers or [f"layer {number}" for number in range(1, overview.depth + 1)]
        shares = ", ".join(f"{name} {p:.2f}" for name, p in zip(names, overview.prior, strict=True))
        say(f"Probability that a new task transfers, as the tasks so far say: {shares}.")
    for task in overview.tasks:
        if overview.layers:
            say(f"Task '{task.name}': {task.layers}.")
        if task.source is not None:
            say(f"What task '{task.name}' transfers are the layers of task '{task.source}', as they are.")
        if task.training:
            different = ", ".join(f"{name} = {value}" for name, value in task.training.items())
            say(f"Task '{task.name}' was trained with {different}.")
        if task.left_out:
            say(f"Left out of the {overview.reads} of task '{task.name}': {', '.join(task.left_out)}.")
    if not overview.keeps:
        say("Later tasks may have changed what earlier ones answer; lasem evaluate measures how accurate they are.")
    elif overview.num_kept_parameters:
        kept = f"{overview.num_kept_parameters:,}"
        say(f"{kept} of those shared keep the answers of earlier tasks the same to the bit.")
    if overview.unfinished is not None:
        name = overview.unfinished
        say(f"Task '{name}' is not finished: lasem learn MODEL --resume goes on, or lasem forget throws it away.")
