"""``lasem learn``: add a task to a growing model."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from lasem.cli.main import FailedRunError
from lasem.cli.model_options import add_columns, add_task, add_wait, model_parser, need, percent, printable, read_wait
from lasem.cli.options import add_settings, explain_unknown, read_settings
from lasem.cli.parser import Parser
from lasem.cli.progress import Shown, make_observer
from lasem.cli.remaining import Remaining, duration
from lasem.errors import ConfigError
from lasem.experiments import ExperimentConfig
from lasem.learner import Branch, GrowingModel, Source, TaskOverview
from lasem.records import EpochRecord, TimingRecord
from lasem.settings import read_value

_PARTS = ("net", "sharing", "search", "protect", "training")
_EXAMPLES = """examples:
  lasem learn model --task cats --train photos/cats     photos/cats/CLASS/*.png; makes the model
  lasem learn model --task dogs --train dogs.parquet --test more.parquet
  lasem learn model --task cats --train photos --sharing tf --training.epochs 50 --image-size 64
A learning that was stopped or killed goes on with the same command.
"""


def main(argv: Sequence[str]) -> int:
    """Run it; the exit code."""
    parser = _parser()
    asked_help = "-h" in argv or "--help" in argv
    if not argv or argv[0].startswith("-"):
        if not asked_help:
            parser.error("expected the model's folder right behind 'learn'; got " + (argv[0] if argv else "nothing"))
        held = None
    else:
        held = GrowingModel(argv[0]).settings()
    stored = {part: _named(held[part]) for part in _PARTS[1:]} if held else {"protect": {"name": Branch.name}}
    add_settings(parser, argv, stored, _PARTS, seeds=False)
    explain_unknown(argv, parser, stored)
    found = parser.parse_known_options(argv)
    if found.help:
        print(parser.format_help(), end="")
        return 0
    need(parser, found, "task", "train")
    config = read_settings(found, {"protect": stored["protect"]} if found.preset else stored)
    return _learn(found, config, _model(found, config, fresh=held is None), argv)


def _parser() -> Parser:
    parser, options = model_parser(
        "learn",
        "MODEL --task NAME --train PATH [options]",
        "Add a task to the model in a folder. The first one makes the model; later ones use what it was made with. "
        "The folder holds the model before or after, also if the process is stopped at any moment.",
        _EXAMPLES,
    )
    add_task(options)
    for part, text in (
        ("train", "images to learn from: a folder CLASS/*.png, or a parquet file or folder"),
        ("valid", "images to stop and choose by (default: a share of --train)"),
        ("test", "images that only measure (default: none, unless --train has a test split)"),
    ):
        options.add_argument(f"--{part}", metavar="PATH", help=text)
    add_columns(options)
    options.add_argument(
        "--restart", action="store_true", help="if the task is unfinished, throw that away and begin anew"
    )
    add_wait(options)
    options.add_argument("--quiet", action="store_true", help="show no progress")
    made = parser.add_argument_group("a new model")
    made.add_argument("--image-size", metavar="N", help="side of all images (default: that of the first images)")
    made.add_argument("--channels", metavar="{1,3}", help="1 for grey, 3 for colour (default: as the first images)")
    made.add_argument("--seed", metavar="N", help="of all random numbers (default: 0)")
    return parser


def _named(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if value is not None or key != "name"}


def _model(found: argparse.Namespace, config: ExperimentConfig, *, fresh: bool) -> GrowingModel:
    """The model with what was typed; a new one with the defaults of everything else."""
    typed = {key.split(".")[0] for key, value in vars(found).items() if value is not None}
    chosen: dict[str, Any] = {
        part: config.build_net if part == "net" else getattr(config, part)
        for part in _PARTS
        if fresh or part in typed or (found.preset and part != "net")
    }
    numbers = {
        name: read_value(getattr(found, name), int, f"--{name.replace('_', '-')}")
        for name in ("image_size", "channels", "seed")
        if getattr(found, name) is not None
    }
    if numbers.get("channels", 1) not in (1, 3):
        raise ConfigError(f"--channels must be 1 (grey) or 3 (colour); got {found.channels}.")
    if not 1 <= numbers.get("image_size", 1) <= 8192:
        raise ConfigError(f"--image-size must be from 1 to 8192; got {found.image_size}.")
    return GrowingModel(found.model, **chosen, **numbers, device=config.device)


def _learn(found: argparse.Namespace, config: ExperimentConfig, model: GrowingModel, argv: Sequence[str]) -> int:
    import torch

    if config.threads:
        torch.set_num_threads(config.threads)
    held = model.settings()
    epochs = held["training"]["epochs"] if held else config.training.epochs
    columns = {"image_column": found.image_column, "label_column": found.label_column}
    paths = {part: Source(path=path, **columns) for part in ("valid", "test") if (path := getattr(found, part))}
    command = shlex.join(["lasem", "learn", *(word for word in argv if word != "--restart")])
    shown = make_observer(quiet=found.quiet)
    watch = _Watch(shown, found.task, epochs)
    try:
        with shown:
            learned = model.learn(
                found.task,
                Source(path=found.train, **columns),
                **paths,
                restart=found.restart,
                wait=read_wait(found),
                on_epoch=watch.epoch_ends,
                note=shown.line,
            )
    except KeyboardInterrupt:
        if not watch.began:
            raise KeyboardInterrupt("Stopped before the end of the first epoch; the model is as before.") from None
        raise KeyboardInterrupt(f"Stopped; the model is as before. Go on with the same command: {command}") from None
    except Exception as error:
        if not watch.began:
            raise
        raise FailedRunError(
            f"The model in {found.model} is as before. When the reason is gone, the same command goes on: {command}"
        ) from error
    print(_told(learned))
    return 0


def _told(task: TaskOverview) -> str:
    tested = "" if task.test_accuracy is None else f", test {percent(task.test_accuracy)}"
    return (
        f"{printable(task.name)}: {task.configuration}, valid {percent(task.valid_accuracy)}{tested}, "
        f"{len(task.classes)} classes, {task.num_parameters:,} parameters of its own"
    )


class _Watch:
    """Tells of the epochs."""

    def __init__(self, shown: Shown, task: str, epochs: int) -> None:
        self._shown, self._task, self._epochs = shown, task, epochs
        self._remaining = Remaining()
        self.began = False

    def epoch_ends(self, record: EpochRecord, timing: TimingRecord) -> None:
        self.began = True
        self._remaining.add(record.epoch, timing.seconds_training + timing.seconds_evaluating)
        known = record.epoch <= self._epochs and not record.phase  # a search in phases trains more than once
        seconds = self._remaining.estimate(record.epoch, self._epochs, 0) if known else None
        time_left = "" if seconds is None else f", {duration(seconds)} left"
        phase = f", {record.phase}" if record.phase else ""
        self._shown.moment(
            f"{self._task}{phase}, epoch {record.epoch}{f'/{self._epochs}' if known else ''}{time_left}: "
            f"valid {percent(record.valid_accuracy)}, {record.configuration}",
            record.epoch / self._epochs if known else None,
        )
