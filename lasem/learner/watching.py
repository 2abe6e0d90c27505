"""Observers of training, and those that write its numbers for TensorBoard, Weights & Biases and MLflow.

A writer passes everything on to another observer, for instance the one that shows progress in a terminal. It writes
into ``FOLDER.watch``, next to the folder of a run or a growing model. Results do not depend on it: one that fails says
so once, and training goes on without it.
"""

import importlib
import json
import logging
import os
import secrets
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, final

from lasem.errors import ConfigError
from lasem.files import append, write_file
from lasem.records import EpochRecord, TaskRecord, TimingRecord
from lasem.settings import check_choice, flat

_ALL = "after each task"
"""Where the numbers of tasks are written, one step for each; a task of that name would only share the place."""

_SECONDS = 0.2
"""After which W&B has numbers in its file, where a kill leaves them."""


class Observer:
    """Is notified of a run's steps and does nothing; override what is of interest. Results do not depend on it."""

    def run_starts(self, config: Any, directory: Path) -> None:
        """Everything that can be checked before training has been checked; the folder is this process's own.

        ``config`` is an ExperimentConfig, or where a growing model learns a task its settings as plain values.
        """

    def seed_starts(self, seed: int, num_tasks: int | None, num_learned: int) -> None:
        """A seed begins or goes on, after ``num_learned`` tasks; ``num_tasks`` are in the stream (None: not known).

        A growing model has no seeds in this sense.
        """

    def task_starts(self, task: str, num_epochs: int) -> None:
        """A task begins; ``num_epochs`` of it were trained before the run was stopped."""

    def epoch_ends(self, record: EpochRecord, timing: TimingRecord) -> None:
        """An epoch has been trained; see ``checkpoint_seconds`` of ``run`` for when it can no longer be lost."""

    def task_ends(self, record: TaskRecord, final_accuracies: dict[str, float], seconds: float) -> None:
        """A task has been learned and can no longer be lost.

        Its ``final_accuracies`` are test accuracies on every task so far, of a growing model on this task alone;
        ``seconds`` includes evaluation.
        """

    def seed_ends(self, seed: int) -> None:
        """The stream has been learned to its end."""

    def note(self, message: str) -> None:
        """Something that a person should know."""


class AbstractWriter(Observer, ABC):
    """Writes what it observes with another library, and passes it on.

    What was written is listed in ``NAME.jsonl``: an epoch that is trained again after a kill gives the same numbers and
    is not written a second time.
    """

    name: ClassVar[str]
    """Of the library's extra of lasem."""
    module: ClassVar[str]

    def __init__(self, then: Observer | None = None) -> None:
        """Pass everything on to ``then``; ConfigError if the library is not installed."""
        self.then, self._failed = then or Observer(), False
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing leaves the machine unless it is asked for
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        try:
            self.library: Any = importlib.import_module(self.module)
        except (ImportError, RuntimeError) as error:
            raise ConfigError(
                f"{type(self).__name__} does not import here ({error}). Install it: pip install 'lasem[{self.name}]'"
            ) from error

    @abstractmethod
    def write(self, group: str, step: int, numbers: Mapping[str, float], configuration: str) -> None:
        """Write numbers of a task's epoch or, in a group of all tasks, of a task; raise any error."""

    @abstractmethod
    def close(self) -> None:
        """Finish what is open, if anything is; raise any error."""

    def identity(self, make: Callable[[], str]) -> str:
        """Return what the library calls this run; where it is not known yet, what ``make`` returns."""
        path = self.place / f"{self.name}.id"
        if not path.exists():
            write_file(path, make(), durable=False)
        return path.read_text()

    def run_starts(self, config: Any, directory: Path) -> None:
        self.then.run_starts(config, directory)
        self.settings: dict[str, Any] = flat(config if isinstance(config, Mapping) else config.to_plain())
        self._name = directory.resolve().name
        self.root = directory.resolve().with_name(f"{self._name}.watch")
        self._begin(self._name, self.root)

    def seed_starts(self, seed: int, num_tasks: int | None, num_learned: int) -> None:
        self.then.seed_starts(seed, num_tasks, num_learned)
        self._begin(f"{self._name}, seed {seed}", self.root / f"seed-{seed}")

    def task_starts(self, task: str, num_epochs: int) -> None:
        self.then.task_starts(task, num_epochs)

    def epoch_ends(self, record: EpochRecord, timing: TimingRecord) -> None:
        self.then.epoch_ends(record, timing)
        numbers = {"loss": record.loss, "valid_accuracy": record.valid_accuracy}
        numbers |= {"layers_owned": record.configuration.count("S"), "num_evaluated": record.num_evaluated}
        self._write(record.task, record.epoch, numbers, record.configuration)

    def task_ends(self, record: TaskRecord, final_accuracies: dict[str, float], seconds: float) -> None:
        self.then.task_ends(record, final_accuracies, seconds)
        numbers = {f"accuracy/{task}": accuracy for task, accuracy in final_accuracies.items()}
        numbers |= {"valid_accuracy": record.valid_accuracy, "peak_accuracy": record.peak_accuracy}
        numbers |= {"layers_owned": record.configuration.count("S"), "parameters_added": record.parameters_added}
        numbers |= {"parameters_total": record.parameters_total, "num_epochs": record.num_epochs, "seconds": seconds}
        self._write(_ALL, record.index + 1, numbers, record.configuration)
        if self.root == self.place:
            self._attempt(self.close)

    def seed_ends(self, seed: int) -> None:
        self.then.seed_ends(seed)
        self._attempt(self.close)

    def note(self, message: str) -> None:
        self.then.note(message)

    def _begin(self, title: str, place: Path) -> None:
        self.title, self.place = title, place
        self._written: set[str] | None = None

    def _write(self, group: str, step: int, numbers: Mapping[str, float], configuration: str) -> None:
        line, path = json.dumps([group, step, numbers, configuration]), self.place / f"{self.name}.jsonl"

        def write() -> None:
            if self._written is None:
                self._written = set(path.read_text().splitlines() if path.exists() else ())
            if line not in self._written:
                self.write(group, step, numbers, configuration)
                append(path, f"\n{line}\n")  # a kill may have left a part of a line
                self._written.add(line)

        self._attempt(write)

    def _attempt(self, action: Callable[[], None]) -> None:
        """Do something unless it has failed before; what goes wrong in a library never stops training."""
        if self._failed:
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the library, for its authors
                action()
        except Exception as error:
            self._failed = True
            reason = (str(error).splitlines() or [""])[0][:200].rstrip(".")
            said = f"{type(self).__name__} can write no more: {type(error).__name__}: {reason}."
            self.then.note(f"{said} Training goes on without it.")


@final
class TensorBoard(AbstractWriter):
    """Writes a folder for each task, which ``tensorboard --logdir`` shows as runs."""

    name, module = "tensorboard", "torch.utils.tensorboard"
    _file: Any = None

    def write(self, group: str, step: int, numbers: Mapping[str, float], configuration: str) -> None:
        folder = self.place / "tensorboard" / group
        if self._file is None or Path(self._file.log_dir) != folder:
            self.close()
            self._file, self._shown = self.library.SummaryWriter(folder, purge_step=step), ""
        for name, number in numbers.items():
            self._file.add_scalar(name, number, step)
        if configuration != self._shown:
            self._file.add_text("configuration", configuration, step)
            self._shown = configuration
        self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


@final
class WandB(AbstractWriter):
    """Writes a run of Weights & Biases: without a network, unless the variable ``WANDB_MODE`` is ``online``."""

    name, module = "wandb", "wandb"
    _run: Any = None

    def write(self, group: str, step: int, numbers: Mapping[str, float], configuration: str) -> None:
        if self._run is None:
            self.place.mkdir(parents=True, exist_ok=True)
            self._run = self.library.init(
                project=os.environ.get("WANDB_PROJECT", "lasem"),
                name=self.title,
                id=self.identity(lambda: secrets.token_hex(8)),
                resume="allow",
                dir=self.place,
                config=self.settings,
                mode=os.environ.get("WANDB_MODE", "offline"),
                reinit="create_new",
                settings=self.library.Settings(
                    console="off", silent=True, symlink=False, x_transaction_log_flush_interval=_SECONDS
                ),
            )
            for link in self.place.rglob("debug-core.log"):  # it leads out, which a comparison's folder may not have
                link.unlink()
        self._run.define_metric(f"{group}/*", step_metric=f"{group}/step")
        values = {**numbers, "step": step, "configuration": configuration}
        self._run.log({f"{group}/{name}": value for name, value in values.items()})

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()
            self._run = None


@final
class MLflow(AbstractWriter):
    """Writes a run of MLflow, into ``mlflow.db`` unless the variable ``MLFLOW_TRACKING_URI`` names another place."""

    name, module = "mlflow", "mlflow"
    _client: Any = None

    def write(self, group: str, step: int, numbers: Mapping[str, float], configuration: str) -> None:
        from mlflow.entities import Metric

        if self._client is None:
            self.root.mkdir(parents=True, exist_ok=True)
            logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
            place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.root / 'mlflow.db'}"
            self._client = self.library.MlflowClient(tracking_uri=place)
            self._run = self.identity(self._create)
            self._client.update_run(self._run, status="RUNNING")
        now = int(time.time() * 1000)
        metrics = [Metric(f"{group}/{name}", float(number), now, step) for name, number in numbers.items()]
        self._client.log_batch(self._run, metrics=metrics)
        self._client.set_tag(self._run, f"{group}/configuration", configuration)

    def _create(self) -> str:
        from mlflow.entities import Param

        found = self._client.get_experiment_by_name("lasem")
        experiment = self._client.create_experiment("lasem") if found is None else found.experiment_id
        run: str = self._client.create_run(experiment, run_name=self.title).info.run_id
        params = [Param(name, str(value)[:500]) for name, value in self.settings.items()]
        self._client.log_batch(run, params=params[:100])
        return run

    def close(self) -> None:
        if self._client is not None:
            self._client.set_terminated(self._run)
            self._client = None


WRITERS: dict[str, type[AbstractWriter]] = {kind.name: kind for kind in (TensorBoard, WandB, MLflow)}
"""By the name that ``--watch`` takes."""


def watched(names: Iterable[str], then: Observer) -> Observer:
    """Return an observer that writes for some of WRITERS and passes everything on; ConfigError for other names."""
    for name in names:
        check_choice("watch", name, WRITERS)
        then = WRITERS[name](then)
    return then
