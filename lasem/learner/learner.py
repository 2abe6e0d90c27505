"""The learner: one model that grows by a task at a time, deciding layer by layer what to transfer."""

from __future__ import annotations

from pathlib import Path
from typing import final

import torch
from torch import Tensor

from lasem.data import Split, Task
from lasem.errors import ConfigError, DeviceError
from lasem.learner import storage
from lasem.learner.abstract import AbstractLearner, Images, answered, as_pixels, check_learned, check_new
from lasem.learner.learned import LearnedTask
from lasem.nets import AbstractBlock, Net, start_generator
from lasem.records import TaskRecord
from lasem.search import EM, AbstractSelection
from lasem.sharing import AbstractSharing, HardSharing
from lasem.space import Space
from lasem.training import (
    LayerWeights,
    Mixture,
    OnEpoch,
    Problem,
    Replaced,
    Selected,
    TaskWeights,
    TrainingConfig,
    TrainingState,
    accuracy,
    evaluate,
    follow,
    plan_of,
)


def find_device(name: str) -> torch.device:
    """The device of that name, for instance ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        DeviceError: if torch does not know it or it is not there.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise DeviceError(f"Expected a device that is there ({', '.join(there)}); got '{name}'.") from error
    return device


@final
class Learner(AbstractLearner):
    """Lifelong learning with selective layer transfer: three independent choices make it.

    ``Learner(net, sharing=..., search=..., training=...)`` is LASEM with ``EM()``, hard parameter sharing as usual with
    ``Fixed("all")``, single-task learning with ``Fixed("none")``.
    """

    def __init__(
        self,
        net: Net,
        *,
        sharing: AbstractSharing | None = None,
        search: AbstractSelection | None = None,
        training: TrainingConfig | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        """Start without any task.

        Args:
            net: which layers there are.
            sharing: how shared knowledge becomes a layer's weights; HardSharing() if not given.
            search: which configuration a task gets; EM() if not given.
            training: how a task is trained; TrainingConfig() if not given.
            seed: of all random numbers; not negative. The same seed gives the same bits on the same machine.
            device: where to compute.

        Raises:
            ConfigError: if the search does not fit the network, or the seed is negative.
            DeviceError: if the device is not there.
        """
        if seed < 0:
            raise ConfigError(f"A seed must be at least 0; got {seed}.")
        self.net, self.seed = net, seed
        self.sharing = sharing if sharing is not None else HardSharing()
        self.search = search if search is not None else EM()
        self.training = training if training is not None else TrainingConfig()
        self.device = find_device(device)
        for index in (0, 1):
            self.search.space(net.depth, index)
        self._shared: tuple[dict[str, Tensor], ...] = ({},) * net.depth
        self._tasks: dict[str, LearnedTask] = {}

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks learned so far, in order."""
        return tuple(self._tasks)

    def configuration(self, name: str) -> str:
        """What a learned task transfers, for instance ``"STTS"``."""
        return str(self._learned(name).configuration)

    def classes(self, name: str) -> tuple[str, ...]:
        """Class names of a learned task, in the order of ``predict``'s probabilities."""
        return self._learned(name).classes

    def learn(
        self, task: Task, *, on_epoch: OnEpoch | None = None, resume_from: TrainingState | None = None
    ) -> TaskRecord:
        """Learn one more task; see AbstractLearner."""
        check_new(task, self._tasks, self.net.image_shape)
        problem = self.problem(task)
        found = follow(
            plan_of(self.search, problem),
            seeds=problem.seed,
            epochs_before=sum(learned.num_epochs for learned in self._tasks.values()),
            device=self.device,
            on_epoch=on_epoch,
            resume_from=resume_from,
        )
        return self._keep(task, problem.space, found)

    def problem(self, task: Task) -> Problem:
        """What a search of the task starts from."""
        index = len(self._tasks)
        space = self.search.space(self.net.depth, index)
        weights, replaced = self._initial(task, space)
        return Problem(
            self.net, self.sharing, self.training, task, space, weights, replaced, self.device, (self.seed, index)
        )

    def logits(self, name: str, images: Images) -> Tensor:
        """Logits of shape (N, num_classes) on the CPU; arguments and errors as in ``predict``."""
        learned = self._learned(name)
        pixels = as_pixels(images, self.net.image_shape)
        mixture = Mixture.of(self.net, self.sharing, (learned.configuration,))
        weights = self._weights(learned)
        return answered(
            pixels,
            lambda x: evaluate(mixture, weights, x)[0],
            mean=learned.mean,
            std=learned.std,
            num_classes=len(learned.classes),
            device=self.device,
        )

    def accuracy(self, name: str, split: Split) -> float:
        """Share of a split's images that the task's network labels rightly, in [0, 1]."""
        learned = self._learned(name)
        weights = self._weights(learned)
        return accuracy(self.net, self.sharing, learned.configuration, weights, split)

    def num_parameters(self, name: str | None = None) -> int:
        """Numbers that the whole model holds (shared knowledge once), or those that one task alone owns."""
        if name is not None:
            return self._learned(name).num_parameters
        return self.num_shared_parameters() + sum(t.num_parameters for t in self._tasks.values())

    def num_shared_parameters(self) -> int:
        """Numbers in the shared knowledge, of the layers where there is any."""
        return sum(t.numel() for layer in self._shared for t in layer.values())

    def save(self, directory: str | Path) -> None:
        """Write the model as safetensors and JSON; see AbstractLearner."""
        settings = {"sharing": self.sharing, "search": self.search, "training": self.training}
        storage.save(Path(directory), self.net, settings, self.seed, self._shared, tuple(self._tasks.values()))

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        sharing: AbstractSharing | None = None,
        search: AbstractSelection | None = None,
        training: TrainingConfig | None = None,
        device: str = "cpu",
    ) -> Learner:
        """Read what ``save`` wrote.

        Args:
            directory: the model's folder.
            sharing: the mechanism that the model was saved with, if it is not one of lasem's own.
            search: how later tasks are searched, if other than saved.
            training: how later tasks are trained, if other than saved.
            device: where to compute.

        Raises:
            StorageError: if the folder holds no model, a damaged one, or one of a later format.
        """
        stored = storage.load(Path(directory), find_device(device), sharing=sharing, search=search, training=training)
        learner = cls(
            stored.net,
            sharing=stored.sharing,
            search=stored.search,
            training=stored.training,
            seed=stored.seed,
            device=device,
        )
        learner._shared = stored.shared
        learner._tasks = {task.name: task for task in stored.tasks}
        return learner

    def _learned(self, name: str) -> LearnedTask:
        check_learned(name, self._tasks)
        return self._tasks[name]

    def _weights(self, learned: LearnedTask) -> TaskWeights:
        layers = tuple(
            LayerWeights(shared, own, {}) if transferred else LayerWeights({}, {}, own)
            for shared, own, transferred in zip(self._shared, learned.layers, learned.configuration, strict=True)
        )
        return TaskWeights(layers, learned.head)

    def _initial(self, task: Task, space: Space) -> tuple[TaskWeights, Replaced]:
        """Shared knowledge as it is, or fresh where there is none; what the task may own starts as the settings say.

        Returns:
            The weights, and fresh ones where something was taken over from another task instead.
        """
        layers = []
        replaced: dict[tuple[int, bool], dict[str, Tensor]] = {}
        for i, block in enumerate(self.net.blocks):
            plain = block.initial(self._generator(i, 0), self.net.initial)
            transferable, ownable = any(c[i] for c in space), not all(c[i] for c in space)
            known = {name: value.cpu() for name, value in self._shared[i].items()}
            taken = self._latest_factors(i)
            # one start for all methods; but where the task may choose, both choices must not start as the same
            made_fresh = not known or (not taken and bool(self.sharing.task_shapes(block)))
            apart = ownable and made_fresh
            other = block.initial(self._generator(i, 1), self.net.initial) if apart else plain
            shared, factors, specific = {}, {}, {}
            if transferable:
                shared = known or self.sharing.initial_shared(block, other, self._generator(i, 2))
                factors = taken or self.sharing.initial_task(block, shared, other, self._generator(i, 3))
                if taken:
                    replaced[i, True] = plain
            if ownable:
                taken = self._taken_over(i, block, shared, factors) if shared else {}
                specific = taken or plain
                if taken:
                    replaced[i, False] = plain
            layers.append(LayerWeights(shared, factors, specific))
        head = self.net.head.initial(task.num_classes, self._generator(self.net.depth, 0), self.net.initial)
        return TaskWeights(tuple(layers), head), replaced

    def _latest_factors(self, layer: int) -> dict[str, Tensor]:
        """The latest transferring task's part of a layer, if the mechanism goes on from it."""
        if self.sharing.factors_start == "latest":
            for learned in reversed(self._tasks.values()):
                if learned.configuration[layer]:
                    return {name: value.cpu() for name, value in learned.layers[layer].items()}
        return {}

    def _taken_over(
        self, layer: int, block: AbstractBlock, shared: dict[str, Tensor], factors: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """What task-specific weights start from instead of fresh ones; nothing where they do start fresh."""
        latest = next(reversed(self._tasks.values()), None)
        if self.training.specific_start == "fresh" or latest is None:
            return {}
        if self.training.specific_start == "latest" and not latest.configuration[layer]:
            return {name: value.cpu() for name, value in latest.layers[layer].items()}
        return self.sharing.weights(block, shared, factors)

    def _generator(self, layer: int, part: int) -> torch.Generator:
        return start_generator(self.seed, len(self._tasks), layer, part)

    def _keep(self, task: Task, space: Space, found: Selected) -> TaskRecord:
        """Take over the chosen configuration's weights; shared weights of other layers stay as they were."""
        peak = accuracy(self.net, self.sharing, found.best.configuration, found.best.weights, task.test)
        configuration, weights = found.kept.configuration, found.kept.weights
        learned = LearnedTask(
            name=task.name,
            classes=task.classes,
            configuration=configuration,
            layers=tuple(
                layer.factors if transferred else layer.specific
                for layer, transferred in zip(weights.layers, configuration, strict=True)
            ),
            head=weights.head,
            mean=task.train.mean.to(self.device),
            std=task.train.std.to(self.device),
            num_epochs=found.num_epochs_kept,
            valid_accuracy=found.valid_accuracy,
            peak_accuracy=peak,
        )
        self._shared = tuple(
            layer.shared if transferred else before
            for layer, transferred, before in zip(weights.layers, configuration, self._shared, strict=True)
        )
        self._tasks = {**self._tasks, task.name: learned}
        return TaskRecord(
            task=task.name,
            index=len(self._tasks) - 1,
            classes=task.classes,
            configuration=str(configuration),
            configurations=tuple(str(c) for c in space),
            best_epoch=found.best_epoch,
            num_epochs=found.num_epochs,
            commit_epoch=found.commit_epoch,
            valid_accuracy=found.valid_accuracy,
            peak_accuracy=peak,
            parameters_added=learned.num_parameters,
            parameters_shared=self.num_shared_parameters(),
            parameters_total=self.num_parameters(),
        )
