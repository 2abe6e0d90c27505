"""A learner of any method that does not fit sharing and search."""

from __future__ import annotations

from pathlib import Path
from typing import final

from torch import Tensor

from lasem.data import Split, Task, task_on
from lasem.errors import ConfigError, check_range
from lasem.learner import AbstractLearner, Images, find_device
from lasem.learner.abstract import answered, as_pixels, check_learned, check_new
from lasem.methods import storage
from lasem.methods.info import TaskInfo
from lasem.methods.method import AbstractMethod, Model, Setup, count
from lasem.nets import AbstractNet, Net
from lasem.records import TaskRecord
from lasem.settings import check_plain
from lasem.training import (
    OnEpoch,
    TrainingConfig,
    TrainingState,
    accuracy,
    autocast,
    check_precision,
    follow,
)


@final
class BaselineLearner(AbstractLearner):
    """Learns tasks one after another as a method says."""

    def __init__(
        self,
        net: AbstractNet,
        method: AbstractMethod,
        *,
        training: TrainingConfig | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        """Start without any task.

        Args:
            net: which layers there are.
            method: how tasks are learned.
            training: how weights are fitted; ``TrainingConfig`` with the method's own settings if not given.
            seed: of all random numbers; not negative. The same seed gives the same bits on the same machine.
            device: where to compute.

        Raises:
            ConfigError: if the method cannot learn with such a network or training, or the seed is negative.
            DeviceError: if the device is not there, or cannot compute in the precision of ``training``.
        """
        check_range("A seed", seed, least=0)
        if not isinstance(net, Net):
            raise ConfigError(
                f"Method '{method.name}' looks into the layers of a plain convolutional network (Net); got "
                f"{type(net).__name__}. Choose such a network, or learn this one with Learner: sharing and search take "
                f"any network."
            )
        self.net, self.method, self.seed = net, method, seed
        self.training = training if training is not None else TrainingConfig(**method.training)
        check_plain(method)
        method.check(net, self.training)
        self.device = find_device(device)
        check_precision(self.training.precision, self.device)
        self._model = Model()
        self._tasks: dict[str, TaskInfo] = {}

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks learned so far, in order."""
        return tuple(self._tasks)

    @property
    def model(self) -> Model:
        """The tensors that the method keeps."""
        return self._model

    def classes(self, name: str) -> tuple[str, ...]:
        """Class names of a learned task, in the order of ``predict``'s probabilities."""
        return self.info(name).classes

    def learn(
        self, task: Task, *, on_epoch: OnEpoch | None = None, resume_from: TrainingState | None = None
    ) -> TaskRecord:
        """Learn one more task; see AbstractLearner."""
        check_new(task, self._tasks, self.net.image_shape)
        task = task_on(task, self.device, self.training.images_share)
        index = len(self._tasks)
        setup = Setup(self.net, self.training, self.device, self.seed, index)
        learned = follow(
            self.method.plan(self._model, task, setup),
            seeds=(self.seed, index),
            epochs_before=sum(info.num_epochs for info in self._tasks.values()),
            device=self.device,
            on_epoch=on_epoch,
            resume_from=resume_from,
        )
        model = learned.model
        peak = self._accuracy(learned.best, task.name, task.test)
        self._model = model
        self._tasks[task.name] = TaskInfo(
            name=task.name,
            classes=task.classes,
            mean=task.train.mean.to(self.device),
            std=task.train.std.to(self.device),
            num_epochs=learned.num_epochs,
            valid_accuracy=learned.valid_accuracy,
            peak_accuracy=peak,
        )
        configuration = self.method.transferred(self.net)
        return TaskRecord(
            task=task.name,
            index=index,
            classes=task.classes,
            configuration=configuration,
            configurations=(configuration,),
            best_epoch=learned.best_epoch,
            num_epochs=learned.num_epochs,
            commit_epoch=None,
            valid_accuracy=learned.valid_accuracy,
            peak_accuracy=peak,
            parameters_added=self.num_parameters(task.name),
            parameters_shared=count(model.shared),
            parameters_total=self.num_parameters(),
        )

    def logits(self, name: str, images: Images) -> Tensor:
        """Logits of shape (N, num_classes) on the CPU; see AbstractLearner."""
        info = self.info(name)
        pixels = as_pixels(images, self.net.image_shape)
        with autocast(self.training.precision, self.device):
            return answered(
                pixels,
                lambda x: self.method.logits(self.net, self._model, name, x),
                mean=info.mean,
                std=info.std,
                num_classes=len(info.classes),
                device=self.device,
            )

    def accuracy(self, name: str, split: Split) -> float:
        """Share of a split's images that the task's network labels rightly, in [0, 1]."""
        self.info(name)
        return self._accuracy(self._model, name, split)

    def num_parameters(self, name: str | None = None) -> int:
        """Numbers that all tasks together answer with, or those that one task alone does; see ``count``."""
        if name is not None:
            self.info(name)
            return count(self._model.own[name])
        return count(self._model.shared) + sum(count(own) for own in self._model.own.values())

    def save(self, directory: str | Path) -> None:
        """Write the model as safetensors and JSON; see AbstractLearner."""
        storage.save(
            Path(directory), self.net, self.method, self.training, self.seed, self._model, tuple(self._tasks.values())
        )

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        method: AbstractMethod | None = None,
        training: TrainingConfig | None = None,
        device: str = "cpu",
    ) -> BaselineLearner:
        """Read what ``save`` wrote.

        Args:
            directory: the model's folder.
            method: the one that the model was saved with, if it is not one of lasem's own.
            training: how later tasks are trained, if other than saved.
            device: where to compute.

        Raises:
            StorageError: if the folder holds no such model, a damaged one, or one of a later format.
        """
        stored = storage.load(Path(directory), find_device(device), method=method, training=training)
        learner = cls(stored.net, stored.method, training=stored.training, seed=stored.seed, device=device)
        learner._model = stored.model
        learner._tasks = {info.name: info for info in stored.tasks}
        return learner

    def info(self, name: str) -> TaskInfo:
        """What is known of a learned task; TaskError if it was not learned."""
        check_learned(name, self._tasks)
        return self._tasks[name]

    def _accuracy(self, model: Model, name: str, split: Split) -> float:
        with autocast(self.training.precision, self.device):
            return accuracy(lambda x: self.method.logits(self.net, model, name, x), split, self.device)
