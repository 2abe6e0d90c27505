"""A run on disk: every seed learns the whole stream, task by task, each step kept before the next one begins.

After a kill at any moment the run goes on to the same records. The model says how many tasks are finished, the
checkpoint how many epochs of the next one, and the records are cut back to just that. The order of writing makes it so:

* an epoch's records, then, now and then, its checkpoint: records after the last checkpoint are dropped, and their
  epochs are trained again;
* a task's end: its records, then the model. Records without the model are dropped, and the last epoch's checkpoint
  leads to the same end; with the model the task is finished, and its checkpoint is passed over.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, final

import torch

from lasem.data import Split, Task, TaskStream
from lasem.errors import DataError, StorageError
from lasem.experiments import folder
from lasem.experiments.config import ExperimentConfig, stored_differences
from lasem.files import read_text, write_file
from lasem.learner import Learner
from lasem.learner.learner import find_device
from lasem.learner.model_folder import ModelFolder
from lasem.nets import AbstractNet
from lasem.nets.net import Choice, NetChoice
from lasem.records import EpochRecord, EvaluationRecord, TaskRecord, TimingRecord, read_records
from lasem.report import write_accuracy_matrix, write_report
from lasem.training import CHECKPOINT_SECONDS, Checkpoint, Checkpoints, TrainingState


class Observer:
    """Is notified of a run's steps and does nothing; override what is of interest. Results do not depend on it."""

    def run_starts(self, config: ExperimentConfig, directory: Path) -> None:
        """Everything that can be checked before training has been checked; the folder is this process's own."""

    def seed_starts(self, seed: int, num_tasks: int | None, num_learned: int) -> None:
        """A seed begins or goes on, after ``num_learned`` tasks; ``num_tasks`` are in the stream (None: not known)."""

    def task_starts(self, task: str, num_epochs: int) -> None:
        """A task begins; ``num_epochs`` of it were trained before the run was stopped."""

    def epoch_ends(self, record: EpochRecord, timing: TimingRecord) -> None:
        """An epoch has been trained; see ``checkpoint_seconds`` of ``run`` for when it can no longer be lost."""

    def task_ends(self, record: TaskRecord, final_accuracies: dict[str, float], seconds: float) -> None:
        """A task has been learned and can no longer be lost.

        Its ``final_accuracies`` are test accuracies on every task so far; ``seconds`` includes evaluation.
        """

    def seed_ends(self, seed: int) -> None:
        """The stream has been learned to its end."""

    def note(self, message: str) -> None:
        """Something that a person should know."""


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
        about = folder.describe_environment(find_device(config.device), command, opened[0].num_tasks)
        if resume and directory is None:
            raise StorageError("Expected the folder of the run to resume; got none. Give directory.")
        path = folder.next_free(Path("runs"), config) if directory is None else Path(directory)
        with folder.locked(path, folder.check_run if resume else folder.check_free):
            for partial in path.rglob(".*.tmp"):  # a process was killed while it wrote it
                partial.unlink(missing_ok=True)
            if resume:
                check_same(config, path, "Resume it with those, or start a new run in another folder.")
            else:
                write_file(path / folder.CONFIG, settings)  # first: from now on it is a run
            changed = folder.keep_environment(path, about)
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
    found = stored_differences(read_config(path), str(path / folder.CONFIG), config)
    if found:
        different = "; ".join(f"{name} = {there} there, {here} here" for name, there, here in found[:3])
        more = "; ..." if len(found) > 3 else ""
        raise StorageError(f"{path} holds a run with other settings: {different}{more}. {advice}")


def read_config(path: Path) -> str:
    """Return the settings of the run in a folder, as YAML; StorageError if it holds no run, or they cannot be read."""
    folder.check_run(path)
    try:
        return read_text(path / folder.CONFIG)
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"Expected the settings of a run in {path / folder.CONFIG}; {error}.") from error


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Compute with so many threads of the CPU; 0: with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
        self._journal = folder.Journal(directory)
        self._learner: Learner | None = None
        if (self._model / "config.json").exists():
            self._learner = Learner.load(self._model, **_learner_settings(config), net=self._own_net())
        self._num_learned = len(self._learner.task_names) if self._learner else 0
        self._checkpoint = Checkpoint.load(self._checkpoints)
        if self._checkpoint and self._checkpoint.num_learned != self._num_learned:
            self._checkpoint = None  # of a task that was finished after it
        self._cut_back()

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
            self._journal.add_epoch(record, timing)
            checkpoints.epoch_ends(record.epoch, state)
            self._observer.epoch_ends(record, timing)

        record = self._learner.learn(task, on_epoch=keep, resume_from=before.state if before else None)
        started = time.perf_counter()
        accuracies = {name: self._learner.accuracy(name, test) for name, test in tests.items()}
        seconds = time.perf_counter() - started
        self._journal.add_task(
            record,
            EvaluationRecord(after_task=task.name, accuracies=accuracies),
            TimingRecord(task=task.name, epoch=None, seconds_training=0.0, seconds_evaluating=seconds),
        )
        self._learner.save(self._model)
        self._num_learned += 1
        self._write_matrix()
        self._observer.task_ends(record, accuracies, self._journal.seconds(task.name))

    def _write_checkpoint(self, num_learned: int, num_epochs: int, state: TrainingState) -> None:
        Checkpoint(num_learned, num_epochs, state).save(self._checkpoints)

    def _write_matrix(self) -> None:
        write_accuracy_matrix(read_records(self._journal.records), self._directory / "accuracy_matrix.csv")

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

    def _cut_back(self) -> None:
        if self._checkpoint and self._journal.cut_back(self._num_learned, self._checkpoint.num_epochs):
            return
        self._checkpoint = None
        if not self._journal.cut_back(self._num_learned, 0):
            raise StorageError(
                f"Expected the records of {self._num_learned} learned tasks in {self._directory}, as many as its "
                f"model has; there are fewer, so they are damaged. Start a new run."
            )


def _notes(config: ExperimentConfig, learner: Learner, task: Task) -> Iterator[str]:
    """Yield what a person should know before the first task is learned."""
    net, left_out = learner.net, learner.in_tokens(task).left_out
    if remark := learner.method.remark(net):
        yield remark
    if net.origin:
        yield f"Backbone: {net.origin}."
    elif isinstance(config.net, NetChoice) and (advice := config.net.advice(net.image_shape)):
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
