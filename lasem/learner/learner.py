"""The learner: one model that grows by a task at a time, as a method says."""

import json
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, final, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lasem.data import Split, Task, TensorImages, Vocabulary, standardise, task_on
from lasem.data.images import in_chunks
from lasem.data.tokens import said_of_cut
from lasem.errors import ConfigError, DataError, DeviceError, ShapeError, StorageError, TaskError, nearest
from lasem.files import MAX_INDEX_BYTES
from lasem.learner.model_folder import (
    KNOWN,
    ModelFolder,
    Natural,
    TaskInfo,
    as_part,
    as_storage_error,
    check_sizes,
    part_from_plain,
    part_to_plain,
    parts_of,
    read_part,
    stored_choice,
    stored_method,
    stored_task,
)
from lasem.methods.method import AbstractMethod, Setup
from lasem.methods.model import Model, Parts, Recent, Route, StoredPart, count
from lasem.methods.plain import Rows
from lasem.methods.protection import AbstractProtection, Unprotected
from lasem.methods.transfer import Transfer
from lasem.nets import AbstractNet, as_float32, rebuild
from lasem.records import Record, TaskRecord, from_json, to_json
from lasem.search import EM, AbstractSelection
from lasem.settings import Range, check_plain, from_plain, read_value, to_named, to_plain
from lasem.sharing import AbstractSharing, HardSharing
from lasem.training import (
    Named,
    OnEpoch,
    Precision,
    TrainingConfig,
    TrainingState,
    accuracy,
    autocast,
    check_precision,
    evaluation_batch,
    follow,
    tf32,
)
from lasem.training.calibration import best_temperature

Images = Tensor | NDArray[np.generic] | Sequence[str]
"""Images of shape (N, channels, height, width): uint8 pixels, from 0 to 255 whatever the task learned from; or floats
on the scale of the task's own images. For a network that has a tokenizer also texts."""


@final
class Learner:
    """Lifelong learning: tasks arrive one after another, and one model answers for all of them.

    ``Learner(net, sharing=..., search=..., protect=...)`` is selective layer transfer: LASEM with ``EM()``, hard
    parameter sharing as usual with ``Fixed("all")``, single-task learning with ``Fixed("none")``. Any other method is
    an object: ``Learner(net, method=EWC())``. Methods raise TaskError for the name of a task that was not learned.
    """

    def __init__(
        self,
        net: AbstractNet,
        method: AbstractMethod | None = None,
        *,
        sharing: AbstractSharing | None = None,
        search: AbstractSelection | None = None,
        protect: AbstractProtection | None = None,
        training: TrainingConfig | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        """Start without any task.

        Args:
            net: which layers there are.
            method: how tasks are learned; ``Transfer(sharing, search, protect)`` of the next three if not given.
            sharing: how shared knowledge becomes a layer's weights; HardSharing() if not given.
            search: which configuration a task gets; EM() if not given.
            protect: what holds shared knowledge that earlier tasks use; Unprotected() if not given.
            training: how weights are fitted; ``TrainingConfig`` with the method's own settings if not given.
            seed: of all random numbers; not negative. The same seed gives the same bits on the same machine.
            device: where to compute.

        Raises:
            ConfigError: if the method does not fit the network or the training, the seed is negative, or settings
                cannot be saved.
            DeviceError: if the device is not there, or cannot compute in the precision of ``training``.
        """
        Range(least=0).check("A seed", seed)
        if method is None:
            method = Transfer(sharing=sharing or HardSharing(), search=search or EM(), protect=protect or Unprotected())
        elif any(part is not None for part in (sharing, search, protect)):
            raise ConfigError("A method has its own settings; leave sharing, search and protect out.")
        self.net, self.method, self.seed = net, method, seed
        self.training = training if training is not None else TrainingConfig(**method.training)
        for settings in (*parts_of(method).values(), self.training):
            if settings is not None:
                check_plain(settings)  # or it could not be saved once it has learned
        self.device = find_device(device)
        check_precision(self.training.precision, self.device)
        method.check(net, self.training)
        self._begin()

    def _begin(self) -> None:
        self._model = Model()
        self._tasks: dict[str, TaskInfo] = {}
        self._num_learned = 0
        self._backbone: StoredPart | None = None  # the pretrained network's tensors, in a folder
        self._tokenizer: StoredPart | None = None  # its tokenizer
        self._read: set[str] = set()  # tasks whose tensors were read and checked
        self._precision: Precision | None = None  # of all answers, whatever tasks were trained with
        self._records = Parts()  # of how tasks were learned, for those who keep them
        self._forgotten: list[tuple[TaskInfo, StoredPart | None]] = []
        self._stored_search: Mapping[str, Any] | None = None  # of a model that was read and has learned nothing since

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks learned so far, in order."""
        return tuple(self._tasks)

    @property
    def model(self) -> Model:
        """The tensors that the method keeps."""
        return self._model

    @property
    def setup(self) -> Setup:
        """What the learning of the next task starts from."""
        return Setup(self.net, self.training, self.device, self.seed, self._num_learned)

    def settings(self) -> dict[str, Any]:
        """Return the method's settings as plain values: of sharing, search and protect, or of the method."""
        found = {part: to_named(v, KNOWN[part]) for part, v in parts_of(self.method).items() if v is not None}
        return found if self._stored_search is None else {**found, "search": self._stored_search}

    def info(self, name: str) -> TaskInfo:
        """Return what is known of a learned task."""
        if name not in self._tasks:
            known = ", ".join(self._tasks) or "none"
            raise TaskError(
                f"Task '{name}' has not been learned (learned: {known}).{nearest(name, self._tasks)} Learn it first."
            )
        return self._tasks[name]

    def classes(self, name: str) -> tuple[str, ...]:
        """Return the class names of a learned task, in the order of ``predict``'s probabilities."""
        return self.info(name).classes

    def configuration(self, name: str) -> str:
        """Return what a learned task transfers, for instance ``"STTS"``."""
        return self.info(name).configuration

    def check_new(self, task: Task, training: TrainingConfig | None = None) -> None:
        """Check that a task can be learned; arguments as in ``learn``.

        Raises:
            ConfigError: if the method does not fit the training, or its settings cannot be saved.
            DeviceError: if the device cannot compute in the precision of ``training``.
            TaskError: if a task of that name was learned.
            ShapeError: if its images do not fit the network.
            DataError: if the network reads texts and a split holds anything else.
        """
        if task.name in self._tasks:
            raise TaskError(f"Task '{task.name}' has been learned already. Give the new task another name.")
        task = self.in_tokens(task)
        if not self._fits(task.image_shape):
            raise ShapeError(
                f"Task '{task.name}' has images of shape {task.image_shape}; this network takes {self.net.image_shape}."
            )
        for part, split in (("train", task.train), ("valid", task.valid), ("test", task.test)):
            self._check_texts(f"texts (task '{task.name}', split '{part}')", split)
        if training is not None:
            check_plain(training)
            check_precision(training.precision, self.device)
            self.method.check(self.net, training)

    def in_tokens(self, task: Task) -> Task:
        """Return a task with its texts as the network's token ids; DataError if the network has no tokenizer."""
        return task.in_tokens(self.net.vocabulary, self.net.image_shape[2])

    def tokens(self, texts: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
        """Return the token ids of texts for ``predict``, and what was cut, in words; errors as of ``in_tokens``."""
        length, vocabulary = self.net.image_shape[2], self.net.vocabulary
        if vocabulary is None:
            raise DataError("Expected images, which the network takes; got texts.")
        ids, num_cut = vocabulary.read(texts, length)
        return ids, said_of_cut(num_cut, len(texts), length)

    def learn(
        self,
        task: Task,
        *,
        training: TrainingConfig | None = None,
        on_epoch: OnEpoch | None = None,
        resume_from: TrainingState | None = None,
    ) -> TaskRecord:
        """Learn one more task. If it fails, the learner is what it was before.

        Args:
            task: images, labels and names.
            training: how this task's weights are fitted, if otherwise than the learner's others.
            on_epoch: called after every epoch.
            resume_from: state of an interrupted ``learn`` of the same task by a learner in the same condition.

        Raises:
            TrainingError: if training cannot go on.
            StorageError: if ``resume_from`` belongs to something else; and the errors of ``check_new``.
        """
        task = self.in_tokens(task)
        self.check_new(task, training)
        self.find_search()
        training = training or self.training
        task = task_on(task.with_splits(self._prepared), self.device, training.images_share)
        index = self._num_learned
        with tf32(training.precision):
            learned = follow(
                self.method.plan(self._model, task, replace(self.setup, training=training)),
                seeds=(self.seed, index),
                epochs_before=sum(info.num_epochs for info in self._tasks.values()),
                device=self.device,
                on_epoch=on_epoch,
                resume_from=resume_from,
            )
            with autocast(training.precision, self.device):
                peak = accuracy(self._answer(learned.best, task.name), task.test, self.device)
                temperature = learned.temperature or self._temperature(learned.model, task)
        route = learned.model.routes.get(task.name)
        configuration = route.configuration if route else self.method.transferred(self.net)
        # from here on nothing can fail: the learner is what it was, or has learned the task
        self._model = learned.model
        self._num_learned += 1
        for name, changed in learned.model.routes.items():
            if name != task.name:
                versions = changed.versions
                self._tasks[name] = replace(self._tasks[name], configuration=changed.configuration, versions=versions)
        self._tasks[task.name] = TaskInfo(
            name=task.name,
            classes=task.classes,
            mean=tuple(task.train.mean.tolist()),
            std=tuple(task.train.std.tolist()),
            num_epochs=learned.num_epochs_kept,
            valid_accuracy=learned.valid_accuracy,
            peak_accuracy=peak,
            num_images=(len(task.train), len(task.valid), 0 if task.test is task.valid else len(task.test)),
            configuration=configuration,
            versions=route.versions if route else (),
            evidence=route.evidence if route else (),
            scale=task.scale,
            temperature=temperature if training.calibrate else 1.0,
            left_out=task.left_out,
            training=training,
        )
        return TaskRecord(
            task=task.name,
            index=index,
            classes=task.classes,
            configuration=configuration,
            configurations=learned.configurations or (configuration,),
            best_epoch=learned.best_epoch,
            num_epochs=learned.num_epochs,
            commit_epoch=learned.commit_epoch,
            valid_accuracy=learned.valid_accuracy,
            peak_accuracy=peak,
            parameters_added=self.num_parameters(task.name),
            parameters_shared=self.num_shared,
            parameters_total=self.num_parameters(),
            source=learned.source,
            explained=dict(learned.explained[:5]) or None,
            frontier={offer.configuration: offer.accuracy for offer in learned.frontier} or None,
            frontier_owned={offer.configuration: offer.owned for offer in learned.frontier} or None,
            frontier_computed={offer.configuration: offer.computed for offer in learned.frontier} or None,
            true_source=task.truth.source if task.truth else None,
            true_layers=task.truth.layers if task.truth else None,
        )

    @overload
    def predict(self, name: str, images: Images, *, probabilities: Literal[False] = False) -> list[str]: ...
    @overload
    def predict(self, name: str, images: Images, *, probabilities: Literal[True]) -> Tensor: ...
    def predict(self, name: str, images: Images, *, probabilities: bool = False) -> list[str] | Tensor:
        """Answer for one task.

        Args:
            name: of a learned task.
            images: see ``Images``; they are standardised as the task's training images were.
            probabilities: return a float32 tensor of shape (N, num_classes) instead of N class names.

        Raises:
            ShapeError: if the images have another shape than the network takes.
            DataError: if they are on another scale than the task's, or uint8 and the task has none.
        """
        logits = self.logits(name, images)
        if probabilities:
            return torch.softmax(logits, dim=1)
        classes = self.classes(name)
        return [classes[index] for index in logits.argmax(dim=1).tolist()]

    @overload
    def predict_many(
        self, images: Images, names: Sequence[str], *, probabilities: Literal[False] = False
    ) -> list[str]: ...
    @overload
    def predict_many(self, images: Images, names: Sequence[str], *, probabilities: Literal[True]) -> list[Tensor]: ...
    def predict_many(
        self, images: Images, names: Sequence[str], *, probabilities: bool = False
    ) -> list[str] | list[Tensor]:
        """Answer for many tasks at once: the k-th image for the k-th name; otherwise as ``predict``.

        With ``probabilities`` there is one tensor of shape (number of the task's classes,) for each image.
        """
        if len(images) != len(names):
            raise ShapeError(f"Expected one task's name for each image; got {len(images)} images, {len(names)} names.")
        wanted: dict[str, list[int]] = {}
        for position, name in enumerate(names):
            wanted.setdefault(name, []).append(position)
        each = {name: iter(logits) for name, logits in self.logits_many(images, wanted).items()}
        found = [(name, next(each[name])) for name in names]
        if probabilities:
            return [torch.softmax(logits, dim=0) for _, logits in found]
        return [self.classes(name)[int(logits.argmax())] for name, logits in found]

    def logits(self, name: str, images: Images) -> Tensor:
        """Return logits of shape (N, num_classes) on the CPU; arguments and errors as in ``predict``.

        They are divided by the task's temperature (``TrainingConfig.calibrate``).
        """
        self.info(name)
        pixels = self._as_pixels(images)
        return self.logits_many(pixels, {name: range(len(pixels))})[name]

    @torch.no_grad()
    def logits_many(self, images: Images, wanted: Rows) -> dict[str, Tensor]:
        """Return ``logits`` for many tasks at once. Layers that they share run once.

        Args:
            images: as in ``predict``.
            wanted: for each task the positions of its images, which may be other tasks' too.

        Raises:
            TaskError: if a task was not learned.
            ShapeError: as of ``predict``.
            DataError: as of ``predict``, about a task's own images.
        """
        infos = {name: self.info(name) for name in wanted}
        pixels = self._as_pixels(images)
        found = {name: torch.empty(len(wanted[name]), len(info.classes)) for name, info in infos.items()}
        for precision in {self._precision_of(info) for info in infos.values()}:
            some = [info for info in infos.values() if self._precision_of(info) == precision]
            with tf32(precision), autocast(precision, self.device):
                for x, rows, positions in self._inputs(pixels, some, wanted):
                    for name, logits in self.method.logits_many(self.net, self._model, rows, x).items():
                        found[name][positions[name]] = as_float32(logits).cpu() / infos[name].temperature
        return found

    def _inputs(
        self, pixels: Tensor, infos: Sequence[TaskInfo], wanted: Rows
    ) -> Iterator[tuple[Tensor, Rows, dict[str, list[int]]]]:
        """Yield what the network gets, a part at a time: an image once for all tasks that standardise it alike.

        That is inputs (B, ...), the rows of them that each task answers, and the positions in ``wanted`` of these rows.
        """
        alike: dict[tuple[object, ...], list[TaskInfo]] = {}
        for info in infos:
            alike.setdefault((info.mean, info.std, info.scale), []).append(info)
        batch, sources = evaluation_batch(self.net.image_shape), list[tuple[TaskInfo, int]]()
        parts: dict[int, tuple[dict[str, list[int]], dict[str, list[int]]]] = {}
        for first, *others in alike.values():
            row_of: dict[int, int] = {}
            for info in (first, *others):
                for position, image in enumerate(wanted[info.name]):
                    part, row = divmod(row_of.setdefault(image, len(sources) + len(row_of)), batch)
                    rows, positions = parts.setdefault(part, ({}, {}))
                    rows.setdefault(info.name, []).append(row)
                    positions.setdefault(info.name, []).append(position)
            sources += [(first, image) for image in row_of]
        for part, (rows, positions) in sorted(parts.items()):
            pieces = groupby(sources[part * batch : (part + 1) * batch], key=itemgetter(0))
            x = torch.cat([self._standardised(pixels[[k for _, k in some]], info) for info, some in pieces])
            yield x, rows, positions

    def _standardised(self, pixels: Tensor, info: TaskInfo) -> Tensor:
        """Return images as a task's network gets them; DataError if they are on another scale than the task's."""
        scale = _scale_for(pixels, info) if self.net.vocabulary is None else 1.0
        mean, std = (torch.tensor(values, device=self.device) for values in (info.mean, info.std))
        return standardise(pixels.to(self.device), mean, std, scale)

    def accuracy(self, name: str, split: Split) -> float:
        """Return the share of a split's images that the task's network labels rightly, in [0, 1]."""
        info = self.info(name)
        if split.images.texts is not None:
            split = replace(split, images=TensorImages(self.tokens(split.images.texts)[0], "none"))
        scale, other = info.scale, split.images.scale
        if None not in (scale, other) and scale != other:
            raise DataError(
                f"Task '{name}' has images whose white is {scale:g}; in these it is {other:g}. Convert them."
            )
        self._check_texts("texts", split)
        with tf32(self._precision_of(info)), autocast(self._precision_of(info), self.device):
            return accuracy(self._answer(self._model, name), self._prepared(split), self.device)

    def num_parameters(self, name: str | None = None) -> int:
        """Return the numbers that the whole model holds (shared ones once), or those that one task alone owns."""
        if name is not None:
            self.info(name)
            return self._model.num_owned(name)
        own = Parts.of(self._model.own)
        return self.num_shared + sum(own.num_parameters(task) for task in self._tasks)

    @property
    def num_shared(self) -> int:
        """The numbers that tasks share: a pretrained network's own ones, and what was learned."""
        held = count(self.net.tensors) if self._backbone is None else self._backbone.num_parameters
        return held + self._model.num_shared()

    def read(self, name: str) -> None:
        """Read all that a learned task answers with, if the model was loaded to read it later; see ``load``.

        StorageError if a file is damaged or not there any more.
        """
        classes = {name: len(self.classes(name))}
        if name not in self._read:
            needed = self.method.answers_with(self._model, name)
            for parts in (needed.own, needed.versions):
                tuple(parts.values())
            self.method.check_stored(self.net, self._model, classes, self.device)
            self._read.add(name)

    def keep_records(self, name: str, records: Iterable[Record]) -> None:
        """Save with a learned task what was recorded while it was learned."""
        self.info(name)
        lines = "".join(f"{to_json(record)}\n" for record in records).encode()
        self._records = self._records.with_part(name, {_LINES: torch.tensor(list(lines), dtype=torch.uint8)})

    def records(self, name: str) -> tuple[Record, ...]:
        """Return the records that were kept of a learned task, if any; StorageError if they are damaged."""
        self.info(name)
        if name not in self._records:
            return ()
        with as_storage_error(f"Expected records of task '{name}'; they are damaged"):
            lines = bytes(self._records[name][_LINES].tolist()).decode().split("\n")
            return tuple(from_json(line) for line in lines if line)

    def forget(self, name: str) -> None:
        """Give up a task and what only it used; the others answer as before.

        Tasks learned later draw other random numbers than it did. A schedule over all tasks (``inverse``) counts the
        epochs of those that are left. TaskError if later tasks answer with its weights.
        """
        self.info(name)
        model = self.method.forget(self.net, self._model, name)
        self._forgotten.append(self._identity_of(name))
        self._model = model
        self._records = self._records.only(lambda key: key != name)
        del self._tasks[name]

    def save(self, directory: str | Path) -> None:
        """Write the model as safetensors and JSON; a model saved there before may only have grown since.

        What was forgotten is removed. StorageError if the folder holds something else, or cannot be written.
        """
        folder = ModelFolder(directory)
        self._check_same(folder)
        model = self._model
        own = Parts.of(model.own)
        tasks, versions, records = (
            {key: self._put(folder, parts, key) for key in parts} for parts in (own, model.versions, self._records)
        )
        flat = {part: folder.put(tensors) for part in _FLAT if (tensors := getattr(model, part))}
        if self.net.tensors and (self._backbone is None or not folder.has(self._backbone)):
            self._backbone = folder.put(self.net.tensors)
        if self._tokenizer is None or not folder.has(self._tokenizer):
            tokenizer = self.net.vocabulary and self.net.vocabulary.tokenizer and self.net.vocabulary.tokenizer()
            self._tokenizer = folder.put(tokenizer.to_tensors()) if tokenizer else None
        index = {
            **({} if self._backbone is None else {"backbone": part_to_plain(self._backbone)}),
            **({} if self._tokenizer is None else {"tokenizer": part_to_plain(self._tokenizer)}),
            "seed": self.seed,
            "num_learned": self._num_learned,
            "net": self.net.description(),
            **self.settings(),
            "training": to_plain(self.training),
            **{part: part_to_plain(stored) for part, stored in flat.items()},
            "versions": {key: part_to_plain(stored) for key, stored in versions.items()},
            "tasks": [
                {
                    **info.to_plain(self.training),
                    "weights": part_to_plain(tasks[name]),
                    **({"records": part_to_plain(records[name])} if name in records else {}),
                }
                for name, info in self._tasks.items()
            ],
        }
        folder.commit(index)
        own.saved_as(tasks)
        model.versions.saved_as(versions)
        self._records.saved_as(records)
        if own is not model.own:
            self._model = model.having(own=own)

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        method: AbstractMethod | None = None,
        sharing: AbstractSharing | None = None,
        search: AbstractSelection | None = None,
        protect: AbstractProtection | None = None,
        training: TrainingConfig | None = None,
        net: AbstractNet | None = None,
        device: str = "cpu",
        lazy: bool = False,
    ) -> "Learner":
        """Read what ``save`` wrote. What is given replaces what was saved; the search is made when a task is learned.

        Args:
            directory: the model's folder.
            method: the one that the model was saved with, if it is not one of lasem's own.
            sharing: the mechanism that the model was saved with, if it is not one of lasem's own.
            search: how later tasks are searched, if other than saved.
            protect: what holds shared knowledge while later tasks are learned, if other than saved.
            training: how later tasks are trained, if other than saved; all answers are computed in its precision.
            net: the network that the model was saved with, if it was cut from a module, whose code is never saved.
            device: where to compute.
            lazy: read what a task owns when it is first asked for, not all now; damage to it is then found as late.

        Raises:
            StorageError: if the folder holds no model, a damaged one, one of another format or of another network.
        """
        folder, place = ModelFolder(directory), find_device(device)
        parts = {"method": method, "sharing": sharing, "search": search, "protect": protect, "training": training}
        return folder.read(lambda data: cls.of_index(folder, folder.parse(data), parts | {"net": net}, place, lazy))

    @classmethod
    def of_index(
        cls,
        folder: ModelFolder,
        index: Mapping[str, Any],
        given: Mapping[str, Any],
        device: torch.device,
        lazy: bool,
        kept_bytes: float = math.inf,
    ) -> "Learner":
        """Make the learner of an index that was read from a folder; see ``load``.

        With ``lazy``, at most ``kept_bytes`` of the files that were read are kept in memory.
        """
        with as_storage_error(f"{folder.directory} holds no model that can be read"):
            learner = object.__new__(cls)
            learner.seed, learner.device = read_value(index["seed"], Natural, "seed"), device
            of_net = [part_from_plain(index[key]) if key in index else None for key in ("backbone", "tokenizer")]

            def tensors() -> dict[str, Tensor]:
                return {name: t for part in of_net if part for name, t in folder.tensors(part, CPU).items()}

            learner.net = rebuild(index["net"], given.get("net"), tensors)
            check_sizes(learner.net)
            learner.method = stored_method(index, given)
            learner.training = given.get("training") or from_plain(TrainingConfig, index["training"], "training")
            learner._begin()
            learner._backbone, learner._tokenizer = of_net
            if isinstance(learner.method, Transfer) and learner.method.search is None:
                learner._stored_search = index["search"]
            learner._take(folder, index, device, Recent(kept_bytes if lazy else math.inf))
            if given.get("training"):
                learner._precision = learner.training.precision
            for precision in {learner._precision_of(info) for info in learner._tasks.values()}:
                check_precision(precision, device)
            learner.method.check_stored(learner.net, learner._model, {}, device)
            if not lazy:
                tuple(learner._model.versions.values())
                for name in learner._tasks:
                    learner.read(name)
        return learner

    def _take(self, folder: ModelFolder, index: Mapping[str, Any], device: torch.device, recent: Recent) -> None:
        """Take over what an index names."""
        usual = from_plain(TrainingConfig, index["training"], "training")
        infos = [stored_task(entry, self.net, usual) for entry in index["tasks"]]
        twice = next((name for name, times in Counter(info.name for info in infos).items() if times > 1), None)
        if twice is not None:
            raise StorageError(f"Expected each task once in the index of {folder.directory}; got '{twice}' twice.")
        self._tasks = {info.name: info for info in infos}
        self._num_learned = read_value(index["num_learned"], Natural, "num_learned")
        if self._num_learned < len(infos):
            raise StorageError(f"Expected at least {len(infos)} learned tasks; got {self._num_learned}.")
        chosen = infos if isinstance(self.method, Transfer) else []
        routes = {info.name: Route(info.configuration, info.versions, info.evidence) for info in chosen}
        bare = Model(routes=routes)

        def own(name: str, part: StoredPart) -> Named:
            shapes = self.method.shapes(self.net, bare, name, len(self._tasks[name].classes))
            return read_part(folder, part, device, shapes, f"task '{name}'")

        def version(key: str, part: StoredPart) -> Named:
            return read_part(
                folder, part, device, self.method.version_shapes(self.net, key), f"version {key} of a layer"
            )

        def lines(name: str, part: StoredPart) -> Named:
            return folder.tensors(part, CPU, max_bytes=MAX_INDEX_BYTES)

        recorded = {entry["name"]: part_from_plain(entry["records"]) for entry in index["tasks"] if "records" in entry}
        self._records = Parts(None, recorded, recent.reading("records", lines))
        weights = {entry["name"]: part_from_plain(entry["weights"]) for entry in index["tasks"]}
        versions = {key: part_from_plain(entry) for key, entry in index["versions"].items()}
        flat = {part: folder.tensors(part_from_plain(index[part]), device) for part in _FLAT if part in index}
        self._model = Model(
            own=Parts(None, weights, recent.reading("task", own)),
            versions=Parts(None, versions, recent.reading("version", version)),
            routes=routes,
            **flat,
        )

    def find_search(self) -> None:
        """Make the search that a model was saved with, now that it is needed."""
        if self._stored_search is not None and isinstance(self.method, Transfer):
            search = stored_choice(self._stored_search, "search")
            method = replace(self.method, search=search)
            method.check(self.net, self.training)
            self.method, self._stored_search = method, None

    def _put(self, folder: ModelFolder, parts: Parts, key: str) -> StoredPart:
        stored = parts.stored(key)
        return stored if stored is not None and folder.has(stored) else folder.put(parts[key])

    def _check_same(self, folder: ModelFolder) -> None:
        """Raise StorageError if a folder holds something else than an earlier state of this model."""
        index = folder.index()
        if index is None:
            return
        with as_storage_error(f"{folder.directory} holds no model that can be read"):
            made = {"net": json.loads(json.dumps(self.net.description())), "seed": self.seed}
            same = all(index.get(key) == value for key, value in made.items())
            tasks = [(entry, part_from_plain(entry["weights"])) for entry in index["tasks"] if same]
            usual = from_plain(TrainingConfig, index["training"], "training")
            there = [self._identity(stored_task(entry, self.net, usual), part) for entry, part in tasks]
        ours = [self._identity_of(name) for name in list(self._tasks)[: len(there)]]
        kept = [one for one in there if one in ours or one not in self._forgotten]
        if not same or kept != ours[: len(kept)]:
            raise StorageError(f"{folder.directory} holds another model. Save into a new folder, or delete that first.")

    def _identity(self, info: TaskInfo, part: StoredPart) -> tuple[TaskInfo, StoredPart | None]:
        """Return what distinguishes a task: what an older lasem stored of it too, but for what may change."""
        info = replace(info, scale=None, temperature=1.0)
        return (replace(info, configuration="", versions=()), None) if self.method.rewrites else (info, part)

    def _identity_of(self, name: str) -> tuple[TaskInfo, StoredPart | None]:
        own = Parts.of(self._model.own)
        return self._identity(self._tasks[name], own.stored(name) or as_part(own[name])[0])

    def _precision_of(self, info: TaskInfo) -> Precision:
        return self._precision or info.training.precision

    def _answer(self, model: Model, name: str) -> Callable[[Tensor], Tensor]:
        return lambda x: self.method.logits(self.net, model, name, x)

    @torch.no_grad()
    def _temperature(self, model: Model, task: Task) -> float:
        """The temperature that suits a task's validation images best."""
        answer = self._answer(model, task.name)
        batches = task.valid.batches(evaluation_batch(task.image_shape), device=self.device)
        found = [(as_float32(answer(x)), y) for x, y in batches]
        return best_temperature(torch.cat([logits for logits, _ in found]), torch.cat([labels for _, labels in found]))

    def _prepared(self, split: Split) -> Split:
        """A split as a pretrained network expects its images."""
        expected = self.net.preprocessing
        return split if expected is None else split.standardised_by(expected.mean, expected.std)

    def _check_texts(self, what: str, split: Split) -> None:
        vocabulary: Vocabulary | None = self.net.vocabulary
        if vocabulary is not None:
            for images in in_chunks(split.images):
                vocabulary.check(standardise(images, split.mean, split.std), what)

    def _fits(self, shape: Sequence[int]) -> bool:
        wanted, vocabulary = self.net.image_shape, self.net.vocabulary
        return tuple(shape) == wanted if vocabulary is None else vocabulary.fits(shape, wanted)

    def _as_pixels(self, images: Images) -> Tensor:
        """Return images as a tensor; ShapeError or DataError if they are not what the network takes."""
        shape, vocabulary = self.net.image_shape, self.net.vocabulary
        if not isinstance(images, Tensor | np.ndarray):
            if vocabulary is None:
                raise ShapeError(f"Expected images as a tensor or an array; got a {type(images).__name__}.")
            return self.tokens(images)[0]
        how = "" if vocabulary is None else f" Make texts with lasem.data.as_tokens(texts, length={shape[2]})."
        pixels = torch.from_numpy(np.ascontiguousarray(images)) if isinstance(images, np.ndarray) else images
        if pixels.ndim != 4 or not self._fits(pixels.shape[1:]):
            raise ShapeError(
                f"Expected images of shape (N, {', '.join(map(str, shape))}); got {tuple(pixels.shape)}.{how}"
            )
        if pixels.dtype != torch.uint8 and not pixels.is_floating_point():
            raise ShapeError(f"Expected images as uint8 pixels or floats; got {pixels.dtype}.{how}")
        if vocabulary is not None:
            vocabulary.check(pixels)
        return pixels


CPU = torch.device("cpu")

_LINES = "json_lines"
"""The tensor that records are stored as: the bytes of their lines."""

_FLAT = ("shared", "memory")
"""Parts of a model that are one file each."""


def _scale_for(pixels: Tensor, info: TaskInfo) -> float:
    """Return what 255 is on a task's scale; DataError if images are on another one."""
    if pixels.dtype == torch.uint8 and info.scale is None:
        raise DataError(
            f"Task '{info.name}' learned from floats that are no pixels from black (0) to white, or whose white is not "
            f"known: it answers for such tensors, not for image files. Learn it from uint8 images, or say what white "
            f"is in its floats: Task.from_tensors(..., scale=16)."
        )
    scale = info.scale or 1.0
    if info.scale is not None and pixels.is_floating_point() and pixels.numel():
        low, high = (float(value) for value in torch.aminmax(pixels))
        if low < -scale / 2 or high > 2 * scale:
            raise DataError(
                f"Expected images from 0 to {scale:g}, as those that task '{info.name}' learned from; got floats from "
                f"{low:g} to {high:g}. Convert them, or give uint8 pixels."
            )
    return scale


def find_device(name: str) -> torch.device:
    """Return the device of that name, such as ``cuda:1``; DeviceError if torch does not know it or it is not there."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of names that it has given up
            device = torch.device(name)
        torch.zeros(1, dtype=torch.float64, device=device).item()  # some have names only; a search needs float64
    except Exception as error:  # torch answers a wrong name with errors of all kinds
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        why = " Apple's GPUs have no float64, in which searches compute." if name[:3] == "mps" else ""
        raise DeviceError(f"Expected a device that is there ({', '.join(there)}); got '{name}'.{why}") from error
    return device
