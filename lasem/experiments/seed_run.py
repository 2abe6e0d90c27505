"""One seed of a run: the whole stream, task by task, each step kept before the next one begins.

After a kill at any moment the run goes on to the same records. The model says how many tasks are finished, the
checkpoint how many epochs of the next one, and the records are cut back to just that. The order of writing makes it so:

* an epoch's records, then its checkpoint: records without a checkpoint are dropped, and the epoch is trained again;
* a task's end: its records, then the model. Records without the model are dropped, and the last epoch's checkpoint
  leads to the same end; with the model the task is finished, and its checkpoint is passed over.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

from lasem.data import Split, Task, TaskStream
from lasem.errors import StorageError
from lasem.experiments.config import ExperimentConfig
from lasem.experiments.journal import Journal
from lasem.experiments.parts import NetChoice
from lasem.learner import Learner
from lasem.learner.model_folder import ModelFolder
from lasem.nets import AbstractNet
from lasem.records import EpochRecord, EvaluationRecord, TaskRecord, TimingRecord, read_records
from lasem.report.experiment import write_accuracy_matrix
from lasem.training import TrainingState, checkpoint
from lasem.training.checkpoint import Checkpoint


class Observer:
    """Is notified of a run's steps and does nothing; override what is of interest. Results do not depend on it."""

    def run_starts(self, config: ExperimentConfig, directory: Path) -> None:
        """Everything that can be checked before training has been checked; the folder is this process's own."""

    def seed_starts(self, seed: int, num_tasks: int | None, num_learned: int) -> None:
        """One run of the stream begins or goes on.

        Args:
            seed: its seed.
            num_tasks: of the stream; None: not known.
            num_learned: tasks that were learned before the run was stopped.
        """

    def task_starts(self, task: str, num_epochs: int) -> None:
        """A task begins; ``num_epochs`` of it were trained before the run was stopped."""

    def epoch_ends(self, record: EpochRecord, timing: TimingRecord) -> None:
        """An epoch has been trained and can no longer be lost."""

    def task_ends(self, record: TaskRecord, final_accuracies: dict[str, float], seconds: float) -> None:
        """A task has been learned and can no longer be lost.

        Args:
            record: of the task.
            final_accuracies: test accuracy on every task so far.
            seconds: spent on training and evaluating the task.
        """

    def seed_ends(self, seed: int) -> None:
        """The stream has been learned to its end."""

    def note(self, message: str) -> None:
        """Something that a person should know."""


@final
class SeedRun:
    """Learns a stream with one seed, from its start or from where a killed process left it."""

    def __init__(self, config: ExperimentConfig, seed: int, folder: Path, observer: Observer) -> None:
        """Find out from the folder how far the run has come.

        Raises:
            StorageError: if what is there is damaged.
        """
        self._config, self._seed, self._observer = config, seed, observer
        self._model, self._checkpoints, self._matrix = (
            folder / name for name in ("model", "checkpoint", "accuracy_matrix.csv")
        )
        self._journal = Journal(folder)
        self._learner: Learner | None = self._load() if (self._model / "config.json").exists() else None
        self._num_learned = len(self._learner.task_names) if self._learner else 0
        self._checkpoint = checkpoint.load(self._checkpoints)
        if self._checkpoint and self._checkpoint.num_learned != self._num_learned:
            self._checkpoint = None  # of a task that was finished after it
        self._cut_back(folder)

    def finish(self, stream: TaskStream) -> None:
        """Learn every task that is not learned yet."""
        self._observer.seed_starts(self._seed, stream.num_tasks, self._num_learned)
        tests: dict[str, Split] = {}
        for index, task in enumerate(stream if self._num_learned != stream.num_tasks else ()):
            tests[task.name] = task.test
            if index >= self._num_learned:
                self._learn(task, tests)
        if self._num_learned:
            write_accuracy_matrix(read_records(self._journal.records), self._matrix)
        checkpoint.remove(self._checkpoints)
        self._observer.seed_ends(self._seed)

    def _learn(self, task: Task, tests: dict[str, Split]) -> None:
        """Train one task, evaluate all so far, and keep what came out."""
        if self._learner is None:
            self._learner = new_learner(self._config, task, self._seed)
        before, self._checkpoint = self._checkpoint, None
        self._observer.task_starts(task.name, before.num_epochs if before else 0)
        record = self._learner.learn(task, on_epoch=self._keep_epoch, resume_from=before.state if before else None)
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
        write_accuracy_matrix(read_records(self._journal.records), self._matrix)
        self._observer.task_ends(record, accuracies, self._journal.seconds(task.name))

    def _keep_epoch(self, record: EpochRecord, timing: TimingRecord, state: Callable[[], TrainingState]) -> None:
        self._journal.add_epoch(record, timing)
        checkpoint.save(self._checkpoints, Checkpoint(self._num_learned, record.epoch, state()))
        self._observer.epoch_ends(record, timing)

    def _load(self) -> Learner:
        config = self._config
        return Learner.load(
            self._model,
            **method_of(config),
            training=config.training,
            net=self._own_net(),
            device=config.device,
        )

    def _own_net(self) -> AbstractNet | None:
        """The network that the model was saved with, unless it is one that a file can bring back."""
        if isinstance(self._config.net, NetChoice):
            return None
        if isinstance(self._config.net, AbstractNet):
            return self._config.net
        shape = (ModelFolder(self._model).index() or {"net": {}})["net"].get("image_shape", ())
        if len(shape) != 3:
            raise StorageError(
                f"Expected the image_shape in what {self._model / 'config.json'} says of the network, which a function "
                f"makes; got none. Let its description() hold it, or give the network itself as net."
            )
        return self._config.build_net((shape[0], shape[1], shape[2]))

    def _cut_back(self, folder: Path) -> None:
        if self._checkpoint and self._journal.cut_back(self._num_learned, self._checkpoint.num_epochs):
            return
        self._checkpoint = None
        if not self._journal.cut_back(self._num_learned, 0):
            raise StorageError(
                f"Expected the records of {self._num_learned} learned tasks in {folder}, as many as its model has; "
                f"there are fewer, so they are damaged. Start a new run."
            )


def new_learner(config: ExperimentConfig, first_task: Task, seed: int) -> Learner:
    """Return a learner without tasks, its network fitted to the first task's images.

    Raises:
        ConfigError: if the search or the method does not fit the network or the training.
        DeviceError: if the device is not there.
        ShapeError: if the network is for other images.
    """
    net = config.build_net(first_task.image_shape)
    learner = Learner(net, **method_of(config), training=config.training, seed=seed, device=config.device)
    learner.check_new(first_task)
    return learner


def method_of(config: ExperimentConfig) -> dict[str, Any]:
    """Return what a learner is made with: the method, or sharing, search and protection."""
    if config.method is not None:
        return {"method": config.method}
    return {"sharing": config.sharing, "search": config.search, "protect": config.protect}
