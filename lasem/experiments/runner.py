"""A run on disk: every seed learns the whole stream, task by task, each step kept before the next one begins.

After a kill at any moment the run goes on to the same records. The model says how many tasks are finished, the
checkpoint how many epochs of the next one, and the records are cut back to just that. The order of writing makes it so:

* an epoch's records, then, now and then, its checkpoint: records after the last checkpoint are dropped, and their
  epochs are trained again;
* a task's end: its records, then the model. Records without the model are dropped, and the last epoch's checkpoint
  leads to the same end; with the model the task is finished, and its checkpoint is passed over.
"""

import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, final

import numpy
import torch

from lasem import files
from lasem.data import Split, Task, TaskStream
from lasem.errors import DataError, StorageError, quoted
from lasem.experiments.config import ExperimentConfig, stored_differences, takes
from lasem.experiments.parts import DEFAULT_NAMES, folder_name
from lasem.files import append, check_links, parse_json, read_text, regular_bytes, write_file
from lasem.learner import Learner
from lasem.learner.learner import find_device
from lasem.learner.model_folder import ModelFolder
from lasem.learner.watching import Observer
from lasem.nets import AbstractNet
from lasem.nets.net import Choice, NetChoice, pretrained_for
from lasem.records import (
    EpochRecord,
    EvaluationRecord,
    TimingRecord,
    from_json,
    of_kind,
    read_records,
    to_json,
)
from lasem.report import write_accuracy_matrix, write_report
from lasem.training import CHECKPOINT_SECONDS, Checkpoint, Checkpoints, TrainingState

CONFIG = "config.yaml"
"""A folder that holds this file holds a run."""

_SAME = ("python", "torch", "numpy", "lasem", "platform", "device_name", "threads")
"""What the last bits of a run may depend on, of its environment."""


def run(
    config: ExperimentConfig,
    directory: str | Path | None = None,
    *,
    observer: Observer | None = None,
    resume: bool = False,
    command: Sequence[str] = (),
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Path:
    """Learn the stream once for each seed, keep everything in a folder, and draw the report.

    Args:
        config: the settings.
        directory: the folder; None: the first free one under ``runs/``.
        observer: is notified of how it goes.
        resume: go on with the run in ``directory``, which must have been started with the same settings.
        command: what a person typed, for ``environment.json``.
        checkpoint_seconds: the training of a task is written at most so often; a process that is killed loses no more
            of its finished epochs.

    Returns:
        The folder: records, model and accuracy matrix of each seed, and the report; see ``docs/runs.md``.

    Raises:
        ConfigError: if settings are wrong or do not fit each other, or a resumed run has others.
        DataError: if the data do not exist or are not what they must be.
        DeviceError: if the device does not exist.
        StorageError: if the folder cannot be used, or is held by another process.
        TrainingError: if the loss is no longer finite; what was learned before stays.
    """
    observer = observer or Observer()
    with cpu_threads(config.threads):
        opened = [check([config])]  # taken out where it is learned, so that no seed's images wait longer than that
        settings = "" if resume else config.to_yaml()  # before a folder is made: some things cannot be written down
        about = describe_environment(find_device(config.device), command, opened[0].num_tasks)
        if resume and directory is None:
            raise StorageError("Expected the folder of the run to resume; got none. Give directory.")
        path = next_free(Path("runs"), config) if directory is None else Path(directory)
        with locked(path, check_run if resume else check_free):
            for partial in path.rglob(".*.tmp"):  # a process was killed while it wrote it
                partial.unlink(missing_ok=True)
            if resume:
                check_same(config, path, "Resume it with those, or start a new run in another ")
            else:
                write_file(path / CONFIG, settings)  # first: from now on it is a run
            changed = keep_environment(path, about)
            if changed:
                observer.note(f"The last digits may differ from a run that was never stopped: {'; '.join(changed)}.")
            observer.run_starts(config, path)
            for seed in config.seeds:
                seed_run = _SeedRun(config, seed, path / "seeds" / str(seed), observer, checkpoint_seconds)
                seed_run.finish(opened.pop() if opened else config.open_stream(seed))
            write_report(path)
    return path


def check(configs: Sequence[ExperimentConfig]) -> TaskStream:
    """Open the stream of the first seed, and meet every error that a run would meet at its start or in a later seed."""
    for config in configs:
        find_device(config.device)
    seed, *later_seeds = configs[0].seeds
    stream = configs[0].open_stream(seed)
    first = next(iter(stream), None)
    if first is None:
        raise DataError(f"Expected at least one task in stream '{stream.name}'; got none.")
    for config in configs:
        _new_learner(config, first, seed)
    for later in later_seeds:
        configs[0].open_stream(later)
    return stream


def check_same(config: ExperimentConfig, path: Path, advice: str) -> None:
    """Raise StorageError, which ends in an advice, if the run in a folder has other settings or classes."""
    found = stored_differences(read_config(path), str(path / CONFIG), config)
    if found:
        different = "; ".join(f"{name} = {there} there, {here} here" for name, there, here in found[:3])
        more = "; ..." if len(found) > 3 else ""
        raise StorageError(f"{path} holds a run with other settings: {different}{more}. {advice}")


def read_config(path: Path) -> str:
    """Return the settings of the run in a folder, as YAML; StorageError if it holds no run, or they cannot be read."""
    check_run(path)
    try:
        return read_text(path / CONFIG)
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"Expected the settings of a run in {path / CONFIG}; {error}.") from error


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Compute with so many threads of the CPU; 0: with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def locked(directory: Path, check: Callable[[Path], None]) -> Iterator[None]:
    """Hold a folder, which is made if it does not exist; StorageError as ``check``, or if another process holds it.

    ``check`` raises StorageError if the folder holds something else than it must: ``check_free``, ``check_run`` or
    ``check_comparison``.
    """
    if directory.exists() and not directory.is_dir():
        raise StorageError(f"Expected a folder; {directory} is a file. Choose another one.")
    if not (directory / files.LOCK).exists():
        check(directory)  # a folder of something else gets no lock file
    busy = f"Another process is writing to {directory}. Wait until it ends, or choose another folder."
    with files.locked(directory, busy):
        check(directory)
        yield


def check_free(directory: Path) -> None:
    """Raise StorageError unless a folder is new or empty, except for what a run leaves that is killed at its start."""
    if directory.exists() and not directory.is_dir():
        raise StorageError(f"Expected a new folder for the run; {directory} is a file. Choose another folder.")
    names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    taken = sorted(name for name in names if name != files.LOCK and not fnmatch(name, f".{CONFIG}.*.tmp"))
    if CONFIG in taken:
        raise StorageError(
            f"{directory} holds a run already. Continue it with --resume {quoted(str(directory))}, or choose another "
            f"folder."
        )
    if taken:
        raise StorageError(
            f"Expected a new or empty folder for the run; {directory} holds {', '.join(taken[:3])}"
            f"{', ...' if len(taken) > 3 else ''}. Choose another folder."
        )


def check_run(directory: Path) -> None:
    """Raise StorageError unless a folder holds a run."""
    if not directory.is_dir():
        raise StorageError(f"Expected the folder of a run; there is no folder {directory}.")
    if not (directory / CONFIG).is_file():
        raise StorageError(
            f"Expected the folder of a run, which holds {CONFIG}; {directory} does not. Give the folder that the run "
            f"writes to, or start a new run."
        )
    check_links(directory)


def check_comparison(directory: Path) -> None:
    """Raise StorageError if a folder cannot be that of a comparison, new or begun before."""
    if (directory / CONFIG).exists():
        raise StorageError(f"{directory} holds a run, not a comparison of runs. Choose another folder.")


def next_free(parent: Path, config: ExperimentConfig) -> Path:
    """Make the first folder ``STREAM-SHARING-SEARCH-001`` or ``STREAM-METHOD-001``, ... that does not exist yet."""
    names = {part: folder_name(getattr(config, part)) for part in config.parts if part not in ("net", "training")}
    if names.get("protect") == DEFAULT_NAMES["protect"]:
        del names["protect"]
    stem = "-".join(names.values())
    number = 0
    while True:
        number += 1
        directory = parent / f"{stem}-{number:03d}"
        try:
            directory.mkdir(parents=True)  # fails where another process was quicker
            return directory
        except FileExistsError:
            if not parent.is_dir():
                raise StorageError(f"Expected a folder for runs; {parent} is a file. Choose another.") from None
        except OSError as error:
            raise StorageError(f"Cannot make {directory}: {error.strerror}. Choose another folder.") from error


def describe_environment(device: torch.device, command: Sequence[str], num_tasks: int | None) -> dict[str, Any]:
    """Return plain values for ``environment.json``; paths are only those that a person typed in ``command``."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "command": list(command),
        "num_tasks": num_tasks,
        "lasem": version("lasem"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "device_name": name,
    }


def keep_environment(path: Path, about: dict[str, Any]) -> list[str]:
    """Write it to a run's folder once, and return what of it has changed since."""
    place = path / "environment.json"
    try:
        before = parse_json(place, regular_bytes(place))
    except (OSError, StorageError):
        write_file(place, json.dumps(about, indent=1) + "\n")
        return []
    return [f"{key} was {before.get(key)} and is {about[key]}" for key in _SAME if before.get(key) != about[key]]


@final
class _SeedRun:
    """Learns a stream with one seed, from its start or from where a killed process left it."""

    def __init__(
        self, config: ExperimentConfig, seed: int, directory: Path, observer: Observer, checkpoint_seconds: float
    ) -> None:
        """Find out from the folder how far the run has come; StorageError if it is damaged."""
        self._config, self._seed, self._observer = config, seed, observer
        self._checkpoint_seconds = checkpoint_seconds
        self._directory, self._model, self._checkpoints = directory, directory / "model", directory / "checkpoint"
        self._records = directory / "records.jsonl"  # results only: the same seed gives the same bytes
        self._timings = directory / "timings.jsonl"  # wall-clock times
        self._learner: Learner | None = None
        if (self._model / "config.json").exists():
            self._learner = Learner.load(self._model, **_learner_settings(config), net=self._own_net())
        self._num_learned = len(self._learner.task_names) if self._learner else 0
        self._checkpoint = Checkpoint.load(self._checkpoints)
        if self._checkpoint and self._checkpoint.num_learned != self._num_learned:
            self._checkpoint = None  # of a task that was finished after it
        self._go_back()

    def finish(self, stream: TaskStream) -> None:
        """Learn every task that is not learned yet."""
        self._observer.seed_starts(self._seed, stream.num_tasks, self._num_learned)
        tests: dict[str, Split] = {}
        for index, task in enumerate(stream if self._num_learned != stream.num_tasks else ()):
            tests[task.name] = task.test
            if index >= self._num_learned:
                checkpoints = Checkpoints(partial(self._write_checkpoint, index), self._checkpoint_seconds)
                with checkpoints.written_if_stopped():
                    self._learn(task, tests, checkpoints)
        if self._num_learned:
            self._write_matrix()
            ModelFolder(self._model).sweep()  # a kill may have come between its last two steps
        shutil.rmtree(self._checkpoints, ignore_errors=True)
        self._observer.seed_ends(self._seed)

    def _learn(self, task: Task, tests: dict[str, Split], checkpoints: Checkpoints) -> None:
        """Train one task, evaluate all so far, and keep what came out."""
        if self._learner is None:
            self._learner = _new_learner(self._config, task, self._seed)
            if self._seed == self._config.seeds[0]:
                for note in _notes(self._config, self._learner, task):
                    self._observer.note(note)
        before, self._checkpoint = self._checkpoint, None
        self._observer.task_starts(task.name, before.num_epochs if before else 0)

        def keep(record: EpochRecord, timing: TimingRecord, state: Callable[[], TrainingState]) -> None:
            append(self._timings, to_json(timing) + "\n")
            append(self._records, to_json(record) + "\n")
            checkpoints.epoch_ends(record.epoch, state)
            self._observer.epoch_ends(record, timing)

        record = self._learner.learn(task, on_epoch=keep, resume_from=before.state if before else None)
        started = time.perf_counter()
        accuracies = {name: self._learner.accuracy(name, test) for name, test in tests.items()}
        seconds = time.perf_counter() - started
        evaluation = EvaluationRecord(after_task=task.name, accuracies=accuracies)
        timing = TimingRecord(task=task.name, epoch=None, seconds_training=0.0, seconds_evaluating=seconds)
        # the model that is saved next relies on them
        append(self._timings, to_json(timing) + "\n", durable=True)
        append(self._records, f"{to_json(record)}\n{to_json(evaluation)}\n", durable=True)
        self._learner.save(self._model)
        self._num_learned += 1
        self._write_matrix()
        timings = [t for t in of_kind(read_records(self._timings), TimingRecord) if t.task == task.name]
        self._observer.task_ends(record, accuracies, sum(t.seconds_training + t.seconds_evaluating for t in timings))

    def _write_checkpoint(self, num_learned: int, num_epochs: int, state: TrainingState) -> None:
        Checkpoint(num_learned, num_epochs, state).save(self._checkpoints)

    def _write_matrix(self) -> None:
        write_accuracy_matrix(read_records(self._records), self._directory / "accuracy_matrix.csv")

    def _own_net(self) -> AbstractNet | None:
        """The network that the model was saved with, unless it is one that a file can bring back."""
        net = self._config.net
        if isinstance(net, Choice | AbstractNet):
            return net if isinstance(net, AbstractNet) else None
        shape = (ModelFolder(self._model).index() or {"net": {}})["net"].get("image_shape", ())
        if len(shape) != 3:
            raise StorageError(
                f"Expected the image_shape in what {self._model / 'config.json'} says of the network, which a function "
                f"makes; got none. Let its description() hold it, or give the network itself as net."
            )
        return self._config.build_net((shape[0], shape[1], shape[2]))

    def _go_back(self) -> None:
        """Drop the records after the checkpoint, or if there are fewer, after the model."""
        if self._checkpoint and self._cut_back(self._checkpoint.num_epochs):
            return
        self._checkpoint = None
        if not self._cut_back(0):
            raise StorageError(
                f"Expected the records of {self._num_learned} learned tasks in {self._directory}, as many as its "
                f"model has; there are fewer, so they are damaged. Start a new run."
            )

    def _cut_back(self, num_epochs: int) -> bool:
        """Drop everything after the learned tasks and some epochs of the next one; return whether there are as many.

        The lines say where they belong: a task's end is its EvaluationRecord, or a timing without an epoch.
        """
        ends = [(path, _end(path, self._num_learned, num_epochs)) for path in (self._records, self._timings)]
        if any(end is None for _, end in ends):
            return False
        for path, end in ends:
            if path.exists():
                try:
                    os.truncate(path, end or 0)
                except OSError as error:
                    raise StorageError(f"Cannot write {path}: {error.strerror}.") from error
        return True


def _end(path: Path, num_learned: int, num_epochs: int) -> int | None:
    """Return the position after the last line to keep; None if there are fewer lines."""
    end = 0
    if num_learned == num_epochs == 0:
        return end
    try:
        lines = regular_bytes(path).splitlines(keepends=True)
    except OSError:
        return None
    for line in lines:
        if not line.endswith(b"\n"):
            break  # a killed process left a part of a line
        record = from_json(line.decode(errors="replace"))
        ends_task = isinstance(record, EvaluationRecord) or (isinstance(record, TimingRecord) and record.epoch is None)
        end += len(line)
        if num_learned > 0:
            num_learned -= ends_task
        elif isinstance(record, EpochRecord | TimingRecord) and not ends_task:
            num_epochs -= 1
        else:
            return None
        if num_learned == num_epochs == 0:
            return end
    return None


def _notes(config: ExperimentConfig, learner: Learner, task: Task) -> Iterator[str]:
    """Yield what a person should know before the first task is learned."""
    net, left_out = learner.net, learner.in_tokens(task).left_out
    if remark := learner.method.remark(net):
        yield remark
    if net.origin:
        yield f"Backbone: {net.origin}."
    elif isinstance(config.net, NetChoice) and (advice := config.net.advice(net.image_shape)):
        better, _ = pretrained_for(max(net.image_shape[1:]))
        if better is None or takes(learner.method, better(net.image_shape), learner.training):
            yield advice
    if left_out:
        yield f"Left out of the stream's data: {', '.join(left_out)}."


def _new_learner(config: ExperimentConfig, first_task: Task, seed: int) -> Learner:
    """Return a learner without tasks whose network is fitted to the first task's images."""
    learner = Learner(config.build_net(first_task.image_shape), seed=seed, **_learner_settings(config))
    learner.check_new(first_task)
    return learner


def _learner_settings(config: ExperimentConfig) -> dict[str, Any]:
    method = {"sharing": config.sharing, "search": config.search, "protect": config.protect}
    if config.method is not None:
        method = {"method": config.method}
    return {**method, "training": config.training, "device": config.device}
