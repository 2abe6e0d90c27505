"""One growing model in a folder, for daily use: the commands ``lasem learn``, ``predict``, ..., in Python."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, final

import torch
from torch import Tensor

from lasem.data import Task
from lasem.data.decode import Channels, Resize
from lasem.data.images import in_chunks
from lasem.data.labelled import and_left_out
from lasem.data.sources import Source, task_from
from lasem.data.split import Part
from lasem.data.task import check_task_name
from lasem.errors import ConfigError, DataError, StorageError, TaskError
from lasem.files import checksum
from lasem.learner import export as exporting
from lasem.learner.answers import (
    Evaluation,
    ModelOverview,
    Prediction,
    Question,
    Skip,
    TaskOverview,
    decoder,
    evaluate,
    layer_names,
    overview_of,
    predict,
    reading,
    reads,
)
from lasem.learner.learner import Learner, find_device
from lasem.learner.model_folder import KNOWN, ModelFolder, as_storage_error
from lasem.learner.unfinished import Given, Unfinished, about_learning, called, in_words, made_with
from lasem.learner.watching import Observer
from lasem.methods.method import AbstractMethod
from lasem.methods.protection import AbstractProtection, Branch, Freeze
from lasem.methods.transfer import Transfer, num_kept
from lasem.nets import AbstractNet, ImageShape, Preprocessing, for_images, of_paper
from lasem.nets.net import pretrained_for
from lasem.records import EpochRecord, Record, TaskRecord, TimingRecord, of_kind
from lasem.search import AbstractSelection, Evidence
from lasem.search.evidence import learned_prior
from lasem.settings import to_named, to_plain
from lasem.sharing import AbstractSharing, HardSharing
from lasem.training import CHECKPOINT_SECONDS, Checkpoints, TrainingConfig, TrainingState, preset_for
from lasem.training.augment import IN_WORDS

Place = str | Path
_DARK = 2**12 >> 8
_METHOD_PARTS = ("sharing", "search", "protect")


@final
class GrowingModel:
    """A model in a folder. What was read is kept in memory until the folder changes.

    ``learn`` and ``forget`` change the folder from one state to the next and hold it meanwhile; one that is stopped at
    any moment leaves the state before or after. The other methods only read and may be called at any time. They raise
    StorageError if there is no model, or it is damaged, and TaskError for a task that was not learned.
    """

    def __init__(
        self,
        directory: Place,
        *,
        net: AbstractNet | Callable[[ImageShape], AbstractNet] | None = None,
        method: AbstractMethod | None = None,
        sharing: AbstractSharing | None = None,
        search: AbstractSelection | None = None,
        protect: AbstractProtection | None = None,
        training: TrainingConfig | None = None,
        image_size: int | None = None,
        channels: Channels | None = None,
        seed: int | None = None,
        device: str = "cpu",
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
        kept_bytes: float = 2**30,
    ) -> None:
        """Name the folder, which need not be there, and what the model is to be made with.

        A model that is there goes on with what it was made with; what is given must be that. Parts that are not lasem's
        own must be given every time.

        Args:
            directory: the model's folder.
            net: which layers there are, or a function of the image shape; ``for_images`` if not given.
            method: as in Learner.
            sharing: as in Learner.
            search: as in Learner, but Evidence() if neither it nor sharing nor protection is given.
            protect: as in Learner, but Freeze() in that case, else Branch(): no task that was learned ever answers
                otherwise.
            training: how tasks are trained, as in Learner. What it is for a model's first task becomes usual in the
                model: later tasks are trained so unless this is given.
            image_size: side that all images are resized to; that of the first task's images if not given.
            channels: 1 for grey, 3 for colour; as the first task's images are if not given.
            seed: as in Learner.
            device: where to compute.
            checkpoint_seconds: while a task is learned, its training is written at most so often; a process that is
                killed loses no more of its finished epochs.
            kept_bytes: of the files that tasks answer with, those read last are kept in memory up to this size in all.
                The others are read again when they are needed.
        """
        self.directory = Path(directory)
        self._folder = ModelFolder(directory)
        self._given = net
        self._net = cache(net) if callable(net) else net  # to cut a large module takes seconds
        self._missing = ""
        self._parts: dict[str, Any] = {"method": method, "sharing": sharing, "search": search, "protect": protect}
        self._training = training
        self._numbers = {"seed": seed, "image_size": image_size, "channels": channels}
        self._device, self._checkpoint_seconds, self._kept_bytes = device, checkpoint_seconds, kept_bytes
        self._opened: tuple[bytes, Learner] | None = None
        self._built: tuple[Any, AbstractNet | None] = (None, None)  # to go on with when only tasks have changed

    def learn(
        self,
        name: str | None = None,
        train: Place | Source | Task | None = None,
        *,
        valid: Place | Source | None = None,
        test: Place | Source | None = None,
        update: bool = False,
        resume: bool = False,
        restart: bool = False,
        wait: float = 0,
        observer: Observer | None = None,
    ) -> TaskOverview:
        """Add a task. If it was interrupted, the same call goes on to the same bits.

        Args:
            name: of the task.
            train: an image folder ``CLASS/*.png``, or a parquet file or folder in the Hugging Face layout; its own
                splits are used where the next two are not given. Or a task in memory, with its own three splits, which
                is learned under ``name``: for tensors, other image shapes and texts.
            valid: images to stop and choose by; a share of ``train`` if there are none.
            test: images that only measure.
            update: learn a new version of a task that the model has, from all images of the new version. The old one
                answers until the new one takes its place.
            resume: go on with the task whose learning was interrupted, from what it was begun with; what is given
                besides must be the same, but for ``test``.
            restart: if the task is unfinished, throw away what was learned of it and begin anew.
            wait: seconds to wait while another process changes the model.
            observer: is notified of every epoch, of the task's end and of what a person may want to know; a writer such
                as ``TensorBoard()``, or your own.

        Raises:
            TaskError: if a task of that name was learned already or, to update it, was not.
            DataError: if the images are not there or not what they must be.
            ShapeError: if a task in memory has images of another shape than the model takes.
            ConfigError: if what is given is not what the model was made with.
            StorageError: if the folder cannot be used, is held by another process, holds an unfinished task that was
                begun with something else, or none to resume.
            TrainingError: if training cannot go on.
        """
        if not resume and (name is None or train is None):
            raise ConfigError("Expected the name of a task and its images; got none. Give name and train, or resume.")
        if resume and (restart or update):
            raise ConfigError("resume goes on with what was begun; leave restart and update out.")
        if name is not None:
            check_task_name(name)
        if isinstance(train, Task) and (valid is not None or test is not None):
            raise ConfigError("A task in memory has its own splits; leave valid and test out.")
        given = {"train": _source(train)} | {"valid": _source(valid, train), "test": _source(test, train)}
        early: Task | None = None
        if self._folder.names() is None:
            if resume or update:
                raise StorageError(f"Expected a model in {self.directory}; there is none.")
            early = self._task(None, str(name), given)  # what is wrong with images is said before a folder is made
            self._fresh(early.image_shape).check_new(early)
        self.settings()  # nothing is touched in a folder that holds something else
        with self._folder.locked(wait):
            unfinished = Unfinished(self.directory)
            learner, made = self._grower(unfinished.about.get("begun") if resume else None)
            watching = observer or Observer()
            ended = self._tidy(unfinished, learner, made)
            if learner is not None and ended is not None and name in (ended, None):
                watching.note(f"Task '{ended}' had been learned to its end before the interruption.")
                return overview_of(learner, ended, measured_now=True)
            training = None
            if resume:
                name, update, training, given = unfinished.begun(name, given)
            assert name is not None
            unfinished.check_idle(name)
            if learner is not None:
                if update:
                    learner.forget(name)
                elif name in learner.task_names:
                    raise TaskError(
                        f"Task '{name}' has been learned already. Learn a new version of it with --update "
                        f"(update=True), or give the new task another name."
                    )
                early = None
            elif update:
                raise TaskError(f"Task '{name}' has not been learned, so there is nothing to update. Leave update out.")
            task = early or self._task(learner, name, given)
            learner = learner or self._fresh(task.image_shape)
            training = self._training or training or learner.training
            task = learner.in_tokens(task)
            learner.check_new(task, training)
            if learner.net.origin or self._missing:
                watching.note(f"Backbone: {learner.net.origin}." if learner.net.origin else self._missing)
            for said in _notes(learner, task, training):
                watching.note(said)
            if restart:
                unfinished.remove()
            about = about_learning(learner, task, training, made, given) | ({"update": True} if update else {})
            watching.run_starts(made_with(learner, training), self.directory)
            self._learn(learner, task, training, about, unfinished, watching)
            return overview_of(learner, name, measured_now=True)

    def predict(
        self,
        name: str,
        images: Iterable[Place],
        *,
        top: int = 1,
        skip: Skip | None = None,
        note: Callable[[str], None] | None = None,
    ) -> Iterator[Prediction]:
        """Answer for image files, or for texts, a part of them at a time.

        Args:
            name: of the task.
            images: files, and folders of which every image is taken, also in folders below; for a model of texts,
                the texts.
            top: how many of the likeliest classes.
            skip: called with a file that is no image, or a folder that cannot be read, and the others go on; if not
                given, it is an error.
            note: called with what of a folder is left out, and with how many texts were cut.

        Raises:
            DataError: if an image is not there or cannot be decoded.
        """
        return self._answers((name,), ((image, (name,)) for image in images), top, skip, note)

    def predict_all(
        self,
        images: Iterable[Place],
        *,
        top: int = 1,
        skip: Skip | None = None,
        note: Callable[[str], None] | None = None,
    ) -> Iterator[Prediction]:
        """Answer for each image by every task, in the order of learning. Layers that tasks share run once.

        Arguments and errors as in ``predict``.
        """
        names = tuple(self.tasks)
        if not names:
            raise TaskError(f"Expected a learned task in {self.directory}; there is none. Learn one first.")
        return self._answers(names, ((image, names) for image in images), top, skip, note)

    def predict_many(
        self,
        questions: Iterable[tuple[Place | Tensor, str | Sequence[str]]],
        *,
        top: int = 1,
        skip: Skip | None = None,
        note: Callable[[str], None] | None = None,
    ) -> Iterator[Prediction]:
        """Answer for images of many tasks together. Layers that tasks share run once for all of their images.

        Args:
            questions: an image file or folder, an image that ``decoder`` decoded, or a text; and the task, or the
                tasks, that it is a question to. Answers have the same order.
            top: as in ``predict``, like all else.
            skip: see there.
            note: see there.
        """
        asked = [(image, (names,) if isinstance(names, str) else tuple(names)) for image, names in questions]
        return self._answers(dict.fromkeys(name for _, names in asked for name in names), asked, top, skip, note)

    def decoder(self) -> Callable[[bytes, str], Tensor]:
        """Return a function of an image file's bytes, and of what an error calls it, for ``predict_many``.

        Any thread may call it. It gives uint8 (channels, height, width), or raises DataError. ConfigError if files
        cannot be images of the model.
        """
        return decoder(self.opened().net)

    def opened(self, *names: str) -> Learner:
        """Return the model as it is now, to be asked only; all that tasks of these names answer with is in memory."""

        def read(data: bytes) -> Learner:
            learner = self._open(data)
            for name in names:
                learner.read(name)
            return learner

        return self._folder.read(read)

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """The names of all tasks, in the order of learning, with their classes; errors as in ``reads``."""

        learner = self.opened()
        return {name: learner.classes(name) for name in learner.task_names}

    def evaluate(self, name: str, path: Place | Source, *, pictures: int = 0) -> Evaluation:
        """Compare a task's answers, as the model is now, with labels; of divided data the test split counts.

        Args:
            name: of the task.
            path: labelled images.
            pictures: how many of the surest mistakes have their picture.

        Raises:
            DataError: if the images are not there, cannot be decoded, or are of other classes than the task's.
        """
        learner = self.opened(name)
        source = _source(path)
        channels, size = _reading(learner, source)
        data = source.part(Part.TEST, size, channels)
        with _computing(f"The network of the model in {self.directory} cannot be computed"):
            return evaluate(learner, name, data, pictures)

    def show(self) -> ModelOverview:
        """Return what the folder holds."""
        return self._folder.read(self._overview)

    def records(self) -> dict[str, tuple[Record, ...]]:
        """Return for each task what was recorded while it was learned: an EpochRecord each epoch, and a TaskRecord.

        Empty for a task that an earlier lasem learned.
        """

        def read(data: bytes) -> dict[str, tuple[Record, ...]]:
            learner = self._open(data)
            return {name: learner.records(name) for name in learner.task_names}

        return self._folder.read(read)

    def task_record(self, name: str) -> TaskRecord | None:
        """Return what was recorded when a task had been learned; None for one that an earlier lasem learned."""

        def read(data: bytes) -> TaskRecord | None:
            learner = self._open(data)
            learner.info(name)
            return next(of_kind(learner.records(name), TaskRecord), None)

        return self._folder.read(read)

    def forget(self, name: str, *, wait: float = 0) -> bool:
        """Give up a task and what only it used; or, if it or its update is unfinished, what was learned of that so far.

        Returns:
            Whether the model had the task.

        Raises:
            TaskError: if there is no such task, or later ones answer with its weights.
            StorageError: if the folder cannot be used, is held by another process, or has another unfinished task.
        """
        looked = Unfinished(self.directory, only_look=True)
        if self.settings() is None and looked.task is None:
            raise StorageError(f"Expected a model in {self.directory}; there is none.")
        with self._folder.locked(wait):
            unfinished = Unfinished(self.directory)
            learner, made = self._grower()
            self._tidy(unfinished, learner, made)
            if unfinished.task == name:
                unfinished.remove()
                return False
            if learner is None:
                raise TaskError(f"Task '{name}' has not been learned (unfinished: {unfinished.task}).")
            learner.forget(name)
            unfinished.check_idle(name)
            self._folder.check_held()
            learner.save(self.directory)
            return True

    def export(self, name: str, format: exporting.Format, out: Place) -> tuple[Path, ...]:
        """Write one task as a plain network, outside of the model's folder; see ``lasem.learner.export``."""
        learner = self.opened(name)
        with _computing(f"The network of the model in {self.directory} cannot be computed"):
            return exporting.export(learner, name, format, out, model=self.directory)

    @property
    def reads(self) -> Literal["images", "texts"]:
        """What the model takes."""
        return reads(self.opened().net)

    def settings(self, *, begun: bool = False) -> dict[str, Any] | None:
        """Return what the model was made with, as plain values by part and seed; None if there is no model.

        If ``begun``, it is what the unfinished task was begun with, if there is one. StorageError if the folder holds
        something else, or a damaged model.
        """
        index = self._folder.index()
        index = Unfinished(self.directory).about.get("begun", index) if begun else index
        return None if index is None else _settings_in(index)

    def _learn(
        self,
        learner: Learner,
        task: Task,
        training: TrainingConfig,
        about: dict[str, Any],
        unfinished: Unfinished,
        watching: Observer,
    ) -> None:
        learner.find_search()
        reason, before = learner.method.reason(learner.model, learner.setup), None
        if unfinished.task == task.name:
            unfinished.check_same(about)
            before = unfinished.reached()
            reached = f"after epoch {before.num_epochs}" if before else "before the end of its first epoch"
            watching.note(f"Task '{task.name}' was interrupted {reached}; going on.")
        else:
            unfinished.begin(about)

        records, started = unfinished.records(before.num_epochs if before else 0), time.monotonic()
        watching.task_starts(task.name, before.num_epochs if before else 0)

        def keep(record: EpochRecord, timing: TimingRecord, state: Callable[[], TrainingState]) -> None:
            self._folder.check_held()
            records.append(_shortened(record))
            checkpoints.epoch_ends(record.epoch, state)
            watching.epoch_ends(record, timing)

        def write(num_epochs: int, state: TrainingState) -> None:
            self._folder.check_held()
            unfinished.keep(num_epochs, state, records)

        checkpoints = Checkpoints(write, self._checkpoint_seconds)
        try:
            with checkpoints.written_if_stopped():
                if before is None:
                    learned = learner.learn(task, training=training, on_epoch=keep)
                else:
                    with _computing("Training cannot go on from what was kept of it (--restart begins anew)"):
                        learned = learner.learn(task, training=training, on_epoch=keep, resume_from=before.state)
                self._folder.check_held()
                learner.keep_records(task.name, [*records, learned])
                learner.save(self.directory)
                watching.task_ends(learned, {task.name: learned.peak_accuracy}, time.monotonic() - started)
        except ConfigError:
            if not records:  # settings that nothing can be trained with are not what a task goes on with
                unfinished.remove()
            raise
        if reason:
            watching.note(f"{learner.configuration(task.name)}: {reason}{_helped(learned)}.")
        with suppress(StorageError):  # it is known by the model, which has the task
            unfinished.remove()

    def _task(self, learner: Learner | None, name: str, given: Given) -> Task:
        train, valid, test = (given[part] for part in ("train", "valid", "test"))
        size, channels, seed = (self._numbers[key] for key in ("image_size", "channels", "seed"))
        resize: int | Resize | None
        if isinstance(train, Task):
            there, side, _ = train.image_shape
            if size not in (None, side) or channels not in (None, there):
                raise ConfigError(
                    f"A task in memory is taken as it is; its images are of shape {train.image_shape} (channels, "
                    f"height, width). Leave image_size and channels out."
                )
            return replace(train, name=name)
        if learner is not None:
            (channels, resize), seed = _reading(learner, train), learner.seed
        elif train.text_column is not None:
            resize = None
        elif (expected := self._expected(train, size)) is not None:
            resize, channels = expected.resize(size), channels or 3
        elif size is None or channels is None:
            resize, found = train.find_shape(size)
            channels = channels or found
        else:
            resize = size
        kept: Channels = 1 if channels == 1 else 3
        task = task_from(name, train, valid, test, image_size=resize, channels=kept, seed=seed or 0)
        if kept == 1 and learner is not None and resize is not None and train.in_colour(resize):
            task = replace(task, left_out=(*task.left_out, "the colour of images, as the model is grey"))
        return task

    def _expected(self, train: Source, size: int | None) -> Preprocessing | None:
        """How a new model's pretrained network expects its images; None: it has none, or takes any."""
        if self._net is None and self._parts["method"] is None:
            found, self._missing = pretrained_for(size or max(max(sides) for sides in train.first_sizes()))
            self._net = cache(found) if found else None
            return found.preprocessing if found else None
        return getattr(self._given, "preprocessing", None)

    def _fresh(self, image_shape: ImageShape) -> Learner:
        """A learner without tasks."""
        parts = {part: value for part, value in self._parts.items() if value is not None}
        net = self._net_for(image_shape) or (of_paper if "method" in parts else for_images)(image_shape)
        if "method" not in parts:
            if not (net.pretrained or parts):  # the layers of any earlier task may help
                parts |= {"protect": Freeze(), "search": Evidence()}
            parts.setdefault("protect", Branch())
            if net.pretrained:  # what is transferred stays as it is, so that nothing can be forgotten
                parts.setdefault("sharing", HardSharing(train_shared=False))
                parts.setdefault("search", Evidence())
        return Learner(net, seed=self._numbers["seed"] or 0, device=self._device, training=self._training, **parts)

    def _net_for(self, image_shape: ImageShape) -> AbstractNet | None:
        return self._net if self._net is None or isinstance(self._net, AbstractNet) else self._net(image_shape)

    def _load(self, index: Mapping[str, Any], *, lazy: bool = True) -> Learner:
        net = self._net_for(tuple(_settings_in(index)["net"]["image_shape"]))
        described = [index.get(part) for part in ("net", "backbone", "tokenizer")]
        if net is None and described == self._built[0]:
            net = self._built[1]
        given, device = self._parts | {"net": net}, find_device(self._device)
        learner = Learner.of_index(self._folder, index, given, device, lazy, self._kept_bytes)
        self._built = described, learner.net
        return learner

    def _grower(self, begun: Any = None) -> tuple[Learner | None, str]:
        """The model as it is (if there is none, as it was ``begun``) and its index's checksum, or None and "new"."""
        index = self._folder.index()
        made = "new" if index is None else checksum(self._folder.index_bytes())
        if index is None and begun is not None:
            with as_storage_error(f"Learning cannot go on in {self.directory}"):
                index = {**begun, "num_learned": 0, "tasks": [], "versions": {}}
        if index is None:
            return None, made
        self._check_made_with(_settings_in(index))
        return self._load(index, lazy="method" not in index), made

    def _answers(
        self,
        names: Iterable[str],
        questions: Iterable[Question],
        top: int,
        skip: Skip | None,
        note: Callable[[str], None] | None,
    ) -> Iterator[Prediction]:
        if top < 1:
            raise ConfigError(f"top must be at least 1; got {top}.")
        answers = predict(self.opened(*names), questions, top, skip, note or (lambda _: None))

        def computed() -> Iterator[Prediction]:
            with _computing(f"The network of the model in {self.directory} cannot be computed"):
                yield from answers

        return computed()

    def _open(self, data: bytes) -> Learner:
        """The model of an index's bytes."""
        if self._opened is None or self._opened[0] != data:
            self._opened = data, self._load(self._folder.parse(data))
        return self._opened[1]

    def _check_made_with(self, stored: Mapping[str, Any]) -> None:
        """Raise ConfigError if something was given that the model was not made with."""
        shape = tuple(stored["net"]["image_shape"])
        held = {key: value for part in stored for key, value in called(part, stored[part]).items()}
        held |= {"image_size": shape[1], "channels": shape[0]} | ({} if "method" in held else {"method": Transfer.name})
        net = self._net_for(shape)
        given = {} if net is None else called("net", net.description())
        for part, value in self._parts.items():
            if value is not None:
                given |= called(part, to_named(value, KNOWN[part]))
        given |= {name: number for name, number in self._numbers.items() if number is not None}
        for name, value in given.items():
            if held.get(name) != value:
                raise ConfigError(
                    f"The model in {self.directory} was made with {name} = {in_words(held.get(name))}; got "
                    f"{in_words(value)}. Leave {name} out, or begin another model."
                )

    def _tidy(self, unfinished: Unfinished, learner: Learner | None, made: str) -> str | None:
        """Remove what is of no use; return the task that was stopped between its last two steps: the model has it."""
        self._folder.sweep()
        ended = unfinished.task
        if learner is None or not unfinished.is_ended(learner.task_names, made):
            return None
        unfinished.remove()
        return ended

    def _overview(self, data: bytes) -> ModelOverview:
        learner, unfinished = self._open(data), Unfinished(self.directory, only_look=True)
        evidence = [route.evidence for route in learner.model.routes.values() if route.evidence]
        return ModelOverview(
            directory=str(self.directory),
            image_shape=learner.net.image_shape,
            depth=learner.net.depth,
            layers=layer_names(learner.net),
            settings=made_with(learner, learner.training),
            tasks=tuple(overview_of(learner, name) for name in learner.task_names),
            prior=tuple(learned_prior(evidence, learner.net.depth).tolist()) if evidence else (),
            keeps=learner.method.keeps,
            num_shared_parameters=learner.num_shared,
            num_kept_parameters=num_kept(learner.model),
            num_parameters=learner.num_parameters(),
            num_bytes=self._folder.num_bytes(),
            reads=reads(learner.net),
            unfinished=None if unfinished.is_ended(learner.task_names, checksum(data)) else unfinished.task,
        )


def _helped(learned: TaskRecord) -> str:
    """Say which earlier task helped, and how much of the labels its layers explained before anything was trained."""
    if not learned.explained:
        return ""
    said = [f"'{name}' explain {100 * max(0.0, share):.0f} %" for name, share in learned.explained.items()]
    next_best = f", those of {said[1]}" if len(said) > 1 else ""
    how = (
        "owns layers that begin as an earlier task's"
        if learned.source is None
        else "transfers an earlier task's layers"
    )
    return f"; it {how}. Those of {said[0]} of its labels{next_best}"


def _shortened(record: EpochRecord) -> EpochRecord:
    """Leave out the probabilities of all configurations once one of them is certain: they are most of a record."""
    certain = max(record.probabilities, default=1) == 1
    return replace(record, probabilities=(1.0,)) if certain else record


@contextmanager
def _computing(what: str) -> Iterator[None]:
    """A network or a state of training from a stranger may be one that cannot be computed."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, MemoryError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise StorageError(f"{what}: {reason}") from error


def _settings_in(index: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a model's index."""
    with as_storage_error("Expected settings in the model's index; it is damaged"):
        chosen = ("method",) if "method" in index else _METHOD_PARTS
        found: dict[str, Any] = {part: dict(index[part]) for part in ("net", *chosen, "training")}
        found["training"] = to_plain(TrainingConfig()) | found["training"]  # there may be more of them by now
        channels, height, width = map(int, found["net"]["image_shape"])
        found["net"]["image_shape"] = [channels, height, width]
        return found | {"seed": index["seed"]}


def _source(place: Any, like: Any = None) -> Any:
    """The images in a place, which is like that of the images to train with."""
    if not isinstance(place, str | Path):
        return place
    return replace(like, path=str(place)) if isinstance(like, Source) else Source(path=str(place))


def _reading(learner: Learner, source: Source) -> tuple[Channels, Resize | None]:
    """Return channels of the model's images, and how files become such; they are of no matter for texts."""
    if (source.text_column is None) == (learner.net.vocabulary is None):
        return reading(learner.net) if source.text_column is None else (1, None)
    if source.text_column is None:
        raise DataError("The model reads texts. Say which column has them: --text-column (Source(text_column=...)).")
    raise DataError(f"The model takes images; column '{source.text_column}' is said to have texts. Leave it out.")


def _notes(learner: Learner, task: Task, training: TrainingConfig) -> Iterator[str]:
    """Yield what a person should know before a task is learned."""
    tested = "" if task.test is task.valid else f", {len(task.test):,} to test"
    yield (
        f"Task '{task.name}': {len(task.train):,} {reads(learner.net)} to train with, {len(task.valid):,} to validate"
        f"{tested}, {task.num_classes} classes{and_left_out(task.left_out)}"
    )
    images = task.train.images
    preset = preset_for(training.augment, images)
    if preset != "none":
        yield (
            f"Training images are changed at random, by preset {preset}: {IN_WORDS[preset]}. Where that may change a "
            f"class, set training.augment to none or shift."
        )
    # of 16-bit grey images the upper 8 bits are kept: of 12-bit ones in 16 bits, as X-rays often are, only 4
    dark = images.take(torch.tensor([0])).dtype == torch.uint8 and float(task.train.mean.max()) * 255 < _DARK
    if dark and (most := max(int(chunk.max()) for chunk in in_chunks(images))) < _DARK:
        yield (
            f"The brightest pixel of all training images of '{task.name}' is {most} of 255. Of 16-bit grey images only "
            f"the upper 8 bits are kept: if they hold fewer bits than 16 (below {256 * _DARK}), scale them up first."
        )
    if remark := learner.method.remark(learner.net):
        yield remark
