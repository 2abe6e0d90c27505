"""The learner: one model that grows by a task at a time, deciding layer by layer what to transfer."""

from __future__ import annotations

from pathlib import Path
from typing import final

import torch
from torch import Tensor

from lasem.data import Split, Task, task_on
from lasem.errors import DeviceError, check_range
from lasem.learner import storage
from lasem.learner.abstract import AbstractLearner, Images, answered, as_pixels, check_learned, check_new, check_texts
from lasem.learner.importance import importances, shared_of
from lasem.learner.learned import LearnedTask
from lasem.learner.plain_network import PlainNetwork
from lasem.learner.protection import AbstractProtection, Unprotected
from lasem.learner.shared import SharedKnowledge
from lasem.learner.tasks import LearnedTasks
from lasem.nets import AbstractBlock, AbstractNet, start_generator
from lasem.records import TaskRecord
from lasem.search import EM, AbstractSelection, Mixture, Selected, configuration_accuracy, evaluate
from lasem.settings import check_plain
from lasem.sharing import AbstractSharing, HardSharing
from lasem.space import Configuration, Space
from lasem.space.configuration import TRANSFER
from lasem.training import (
    FreshWeights,
    LayerWeights,
    OnEpoch,
    Quadratic,
    TaskStart,
    TaskWeights,
    TrainingConfig,
    TrainingState,
    autocast,
    check_precision,
    follow,
    initial_statistics,
    with_term,
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
        net: AbstractNet,
        *,
        sharing: AbstractSharing | None = None,
        search: AbstractSelection | None = None,
        training: TrainingConfig | None = None,
        protect: AbstractProtection | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        """Start without any task.

        Args:
            net: which layers there are.
            sharing: how shared knowledge becomes a layer's weights; HardSharing() if not given.
            search: which configuration a task gets; EM() if not given.
            training: how a task is trained; TrainingConfig() if not given.
            protect: what holds shared knowledge that earlier tasks use; Unprotected() if not given.
            seed: of all random numbers; not negative. The same seed gives the same bits on the same machine.
            device: where to compute.

        Raises:
            ConfigError: if search or sharing do not fit the network, the seed is negative, or settings cannot be saved.
            DeviceError: if the device is not there, or cannot compute in the precision of ``training``.
        """
        check_range("A seed", seed, least=0)
        self.net, self.seed = net, seed
        self.sharing = sharing if sharing is not None else HardSharing()
        self.search = search if search is not None else EM()
        self.training = training if training is not None else TrainingConfig()
        self.protect = protect if protect is not None else Unprotected()
        for settings in (self.sharing, self.search, self.training, self.protect):
            check_plain(settings)  # or it could not be saved once it has learned
        self.device = find_device(device)
        check_precision(self.training.precision, self.device)
        for index in (0, 1):
            self.search.space(net.depth, index)
        for block in net.blocks:
            self.sharing.check(block)
        self._shared = SharedKnowledge.none(net.depth)
        self._needed: Quadratic | None = None
        self._tasks = LearnedTasks()
        self._num_learned = 0

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks learned so far, in order."""
        return tuple(self._tasks)

    def configuration(self, name: str) -> str:
        """What a learned task transfers, for instance ``"STTS"``."""
        check_learned(name, self._tasks)
        return str(self._tasks.outline(name).configuration)

    def classes(self, name: str) -> tuple[str, ...]:
        """Class names of a learned task, in the order of ``predict``'s probabilities."""
        return self._learned(name).classes

    def learn(
        self, task: Task, *, on_epoch: OnEpoch | None = None, resume_from: TrainingState | None = None
    ) -> TaskRecord:
        """Learn one more task; see AbstractLearner."""
        check_new(task, self._tasks, self.net.image_shape)
        parts = (("train", task.train), ("valid", task.valid), ("test", task.test))
        splits = {f"texts (task '{task.name}', split '{part}')": split for part, split in parts}
        check_texts(self.net.vocabulary, splits)
        task = task_on(task, self.device, self.training.images_share)
        problem = self.task_start(task)
        found = follow(
            self.search.plan(problem),
            seeds=problem.seed,
            epochs_before=sum(outline.num_epochs for outline in self._tasks.outlines),
            device=self.device,
            on_epoch=on_epoch,
            resume_from=resume_from,
        )
        return self._keep(task, problem.space, found)

    def task_start(self, task: Task) -> TaskStart:
        """What a search of the task starts from."""
        index = self._num_learned
        # a first task has nothing to transfer, also when others were forgotten before it
        space = self.search.space(self.net.depth, index if self._tasks else 0)
        weights, replaced = self._initial(task, space)
        guard = self.protect.guard(frozenset(i for i, used in enumerate(self._in_use()) if used), self._needed)
        return TaskStart(
            self.net,
            self.sharing,
            self.training,
            task,
            space,
            weights,
            replaced,
            self.device,
            (self.seed, index),
            protection=guard,
        )

    def logits(self, name: str, images: Images) -> Tensor:
        """Logits of shape (N, num_classes) on the CPU; arguments and errors as in ``predict``."""
        learned = self._learned(name)
        pixels = as_pixels(images, self.net.image_shape, self.net.vocabulary)
        mixture = Mixture.of(self.net, self.sharing, (learned.configuration,))
        weights = self._weights(learned)
        with autocast(self.training.precision, self.device):
            return answered(
                pixels,
                lambda x: evaluate(mixture, weights, x)[0],
                mean=learned.mean,
                std=learned.std,
                num_classes=len(learned.classes),
                device=self.device,
            )

    def read(self, name: str) -> None:
        """Read all that a learned task answers with, if the model was loaded to read it later; see ``load``.

        Raises:
            TaskError: if the task was not learned.
            StorageError: if a file is damaged or not there any more.
        """
        self._weights(self._learned(name))

    def plain(self, name: str) -> PlainNetwork:
        """A learned task's network as a plain module, in evaluation, on the CPU: what ``export`` writes.

        Raises:
            TaskError: if the task was not learned.
        """
        learned = self._learned(name)
        layers = []
        for i, (block, own) in enumerate(zip(self.net.blocks, self._weights(learned).layers, strict=True)):
            made = self.sharing.weights(block, own.shared, own.factors) if learned.configuration[i] else own.specific
            layers.append({**made, **own.statistics_of(block, str(learned.configuration)[: i + 1])})
        return PlainNetwork(self.net, layers, learned.head, mean=learned.mean, std=learned.std).eval()

    def accuracy(self, name: str, split: Split) -> float:
        """Share of a split's images that the task's network labels rightly, in [0, 1]."""
        learned = self._learned(name)
        check_texts(self.net.vocabulary, {"texts": split})
        return self._accuracy(learned.configuration, self._weights(learned), split)

    def num_parameters(self, name: str | None = None) -> int:
        """Numbers that the whole model holds (shared knowledge once), or those that one task alone owns."""
        if name is not None:
            check_learned(name, self._tasks)
            return self._tasks.outline(name).num_parameters
        return self.num_shared_parameters() + sum(outline.num_parameters for outline in self._tasks.outlines)

    def num_shared_parameters(self) -> int:
        """Numbers in the shared knowledge, of all versions of the layers where there is any."""
        return self._shared.num_parameters

    def num_kept_parameters(self) -> int:
        """Of these, those in versions that are not the latest: no new task goes on from them."""
        return self._shared.num_parameters - self._shared.only_latest().num_parameters

    def forget(self, name: str) -> None:
        """Give up a task, and the shared knowledge that no other task transfers; the others answer as before.

        Tasks learned later draw other random numbers than it did. What a penalty held for it goes on being held, as
        long as the layer is shared. A schedule over all tasks (``inverse``) counts the epochs of those that are left.

        Raises:
            TaskError: if the task was not learned.
        """
        check_learned(name, self._tasks)
        self._tasks = self._tasks.without(name)
        self._shared = self._shared.used_by((o.configuration, o.versions) for o in self._tasks.outlines)
        if self._needed is not None:
            self._needed = self._needed.of(lambda flat: bool(self._shared.latest(int(flat.split(".")[1]))))

    def save(self, directory: str | Path) -> None:
        """Write the model as safetensors and JSON; see AbstractLearner. What was forgotten is removed."""
        settings = {"sharing": self.sharing, "search": self.search, "training": self.training, "protect": self.protect}
        storage.save(
            Path(directory),
            self.net,
            settings,
            self.seed,
            self._num_learned,
            self._shared,
            self._needed,
            self._tasks,
        )

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        sharing: AbstractSharing | None = None,
        search: AbstractSelection | None = None,
        training: TrainingConfig | None = None,
        protect: AbstractProtection | None = None,
        net: AbstractNet | None = None,
        device: str = "cpu",
        lazy: bool = False,
    ) -> Learner:
        """Read what ``save`` wrote.

        Args:
            directory: the model's folder.
            sharing: the mechanism that the model was saved with, if it is not one of lasem's own.
            search: how later tasks are searched, if other than saved.
            training: how later tasks are trained, if other than saved.
            protect: what holds shared knowledge while later tasks are learned, if other than saved.
            net: the network that the model was saved with, if it was cut from a module, whose code is never saved.
            device: where to compute.
            lazy: read what a task owns when it is first asked for, not all now; damage to it is then found as late.

        Raises:
            StorageError: if the folder holds no model, a damaged one, one of a later format or of another network.
        """
        stored = storage.load(
            Path(directory),
            find_device(device),
            sharing=sharing,
            search=search,
            training=training,
            protect=protect,
            net=net,
            lazy=lazy,
        )
        learner = cls(
            stored.net,
            sharing=stored.sharing,
            search=stored.search,
            training=stored.training,
            protect=stored.protect,
            seed=stored.seed,
            device=device,
        )
        learner._shared, learner._needed = stored.shared, stored.needed
        learner._tasks, learner._num_learned = stored.tasks, stored.num_learned
        return learner

    def _in_use(self) -> list[bool]:
        """For each layer whether a task transfers the latest version of its shared knowledge."""
        return [
            any(o.configuration[i] and o.versions[i] == self._shared.latest_version(i) for o in self._tasks.outlines)
            for i in range(self.net.depth)
        ]

    def _moves(self, layer: int) -> bool:
        """Whether learning changes anything of what tasks share of a layer."""
        return any(self.sharing.step(name) > 0 for name in self.sharing.shared_shapes(self.net.blocks[layer]))

    def _learned(self, name: str) -> LearnedTask:
        check_learned(name, self._tasks)
        return self._tasks[name]

    def _weights(self, learned: LearnedTask) -> TaskWeights:
        layers = tuple(
            _kept_weights(block, self._shared.of(i, learned.versions[i]), own, str(learned.configuration)[: i + 1])
            for i, (block, own) in enumerate(zip(self.net.blocks, learned.layers, strict=True))
        )
        return TaskWeights(layers, learned.head)

    def _accuracy(self, configuration: Configuration, weights: TaskWeights, split: Split) -> float:
        with autocast(self.training.precision, self.device):
            return configuration_accuracy(self.net, self.sharing, configuration, weights, split)

    def _initial(self, task: Task, space: Space) -> tuple[TaskWeights, FreshWeights]:
        """Shared knowledge as it is, or fresh where there is none; what the task may own starts as the settings say.

        Returns:
            The weights, and fresh ones where something was taken over from another task instead.
        """
        layers = []
        replaced: dict[tuple[int, bool], dict[str, Tensor]] = {}
        for i, block in enumerate(self.net.blocks):
            plain = block.initial(self._generator(i, 0), self.net.initial)
            transferable, ownable = space.can(i, transfer=True), space.can(i, transfer=False)
            known = {name: value.cpu() for name, value in self._shared.latest(i).items()}
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
            layers.append(LayerWeights(shared, factors, specific, initial_statistics(block, i, space)))
        head = self.net.head.initial(task.num_classes, self._generator(self.net.depth, 0), self.net.initial)
        return TaskWeights(tuple(layers), head), replaced

    def _latest_factors(self, layer: int) -> dict[str, Tensor]:
        """The latest transferring task's part of a layer, if the mechanism goes on from it."""
        if self.sharing.factors_start == "latest":
            for outline in reversed(self._tasks.outlines):
                if outline.configuration[layer]:
                    return self._own_weights(outline.name, layer)
        return {}

    def _taken_over(
        self, layer: int, block: AbstractBlock, shared: dict[str, Tensor], factors: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """What task-specific weights start from instead of fresh ones; nothing where they do start fresh."""
        if self.training.specific_start == "fresh" or not self._tasks:
            return {}
        latest = self._tasks.outlines[-1]
        if self.training.specific_start == "latest" and not latest.configuration[layer]:
            return self._own_weights(latest.name, layer)
        return self.sharing.weights(block, shared, factors)

    def _own_weights(self, name: str, layer: int) -> dict[str, Tensor]:
        """What a task owns of a layer but for its statistics, on the CPU."""
        statistics = self.net.blocks[layer].statistics
        return {key: value.cpu() for key, value in self._tasks[name].layers[layer].items() if key not in statistics}

    def _generator(self, layer: int, part: int) -> torch.Generator:
        return start_generator(self.seed, self._num_learned, layer, part)

    def _keep(self, task: Task, space: Space, found: Selected) -> TaskRecord:
        """Take over the chosen configuration's weights; shared weights of other layers stay as they were."""
        peak = self._accuracy(found.best.configuration, found.best.weights, task.test)
        configuration, weights = found.kept.configuration, found.kept.weights
        stays = [self.protect.branches and used and self._moves(i) for i, used in enumerate(self._in_use())]
        shared, versions = self._shared.with_task(configuration, [layer.shared for layer in weights.layers], stays)
        learned = LearnedTask(
            name=task.name,
            classes=task.classes,
            configuration=configuration,
            layers=tuple(
                (layer.factors if configuration[i] else layer.specific)
                | layer.statistics_of(self.net.blocks[i], str(configuration)[: i + 1])
                for i, layer in enumerate(weights.layers)
            ),
            versions=versions,
            head=weights.head,
            mean=task.train.mean.to(self.device),
            std=task.train.std.to(self.device),
            num_epochs=found.num_epochs_kept,
            valid_accuracy=found.valid_accuracy,
            peak_accuracy=peak,
            num_images=(len(task.train), len(task.valid), 0 if task.test is task.valid else len(task.test)),
        )
        needed, held = self._needed, shared_of(weights, configuration)
        if self.protect.measures is not None and held:
            measured = importances(
                self.net,
                self.sharing,
                configuration,
                weights,
                task,
                kind=self.protect.measures,
                draws=self._generator(self.net.depth, 1),
            )
            needed = with_term(needed, measured, held)
        # from here on nothing can fail: the learner is what it was, or has learned the task
        self._shared, self._needed, self._tasks = shared, needed, self._tasks.with_task(learned)
        self._num_learned += 1
        return TaskRecord(
            task=task.name,
            index=self._num_learned - 1,
            classes=task.classes,
            configuration=str(configuration),
            configurations=tuple(str(c) for c in space) if space.is_listed else (str(configuration),),
            best_epoch=found.best_epoch,
            num_epochs=found.num_epochs,
            commit_epoch=found.commit_epoch,
            valid_accuracy=found.valid_accuracy,
            peak_accuracy=peak,
            parameters_added=learned.num_parameters,
            parameters_shared=self.num_shared_parameters(),
            parameters_total=self.num_parameters(),
        )


def _kept_weights(block: AbstractBlock, shared: dict[str, Tensor], own: dict[str, Tensor], prefix: str) -> LayerWeights:
    """One layer's weights after the choices of its learned task, from what ``LearnedTask.layers`` holds."""
    statistics = {f"{prefix}.{name}": own[name] for name in block.statistics}
    weights = {name: value for name, value in own.items() if name not in block.statistics} if statistics else own
    transferred = prefix.endswith(TRANSFER)
    return LayerWeights(
        shared=shared if transferred else {},
        factors=weights if transferred else {},
        specific={} if transferred else weights,
        statistics=statistics,
    )
