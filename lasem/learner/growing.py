"""One growing model in a folder, for daily use: what the commands ``lasem learn``, ``predict``, ... do, in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, final, overload

import torch

from lasem.data import Task
from lasem.data.cut import TEST
from lasem.data.decode import Channels
from lasem.data.images import in_chunks
from lasem.data.sources import Source, task_from
from lasem.data.task import check_task_name
from lasem.errors import ConfigError, StorageError, TaskError, check_range
from lasem.learner import export as exporting
from lasem.learner.abstract import check_new, check_texts
from lasem.learner.answers import Evaluation, Prediction, Skip, evaluated, predicted, side_of
from lasem.learner.choices import CHOSEN, Choices, called, plain_choice
from lasem.learner.claim import claimed, sweep
from lasem.learner.learner import Learner
from lasem.learner.model_files import damage_told
from lasem.learner.overview import ModelOverview, TaskOverview, bytes_in
from lasem.learner.protection import AbstractProtection, Unprotected
from lasem.learner.storage import stored_config, undisturbed
from lasem.learner.task_files import description_of
from lasem.learner.unfinished import Unfinished, about_images
from lasem.nets import AbstractNet, ImageShape
from lasem.records import EpochRecord, TimingRecord
from lasem.search import AbstractSelection
from lasem.settings import to_plain
from lasem.sharing import AbstractSharing
from lasem.training import TrainingConfig, TrainingState

Place = str | Path
SETTINGS = ("net", "sharing", "search", "training", "protect", "seed")
"""What a model is made with, by the names that its index has for them."""


@final
class GrowingModel:
    """A model in a folder. Nothing is kept in memory between two calls: what is in the folder counts.

    ``learn`` and ``forget`` change the folder from one state to the next and hold it meanwhile; one that is stopped at
    any moment leaves the state before or after. The other methods only read and may be called at any time.
    """

    def __init__(
        self,
        directory: Place,
        *,
        net: AbstractNet | Callable[[ImageShape], AbstractNet] | None = None,
        sharing: AbstractSharing | None = None,
        search: AbstractSelection | None = None,
        training: TrainingConfig | None = None,
        protect: AbstractProtection | None = None,
        image_size: int | None = None,
        channels: Channels | None = None,
        seed: int | None = None,
        device: str = "cpu",
    ) -> None:
        """Name the folder, which need not be there, and what the model is to be made with.

        A model that is there goes on with what it was made with; what is given must be that. Parts that are not lasem's
        own must be given every time.

        Args:
            directory: the model's folder.
            net: which layers there are, or a function of the image shape; ``for_images`` if not given.
            sharing: as in Learner.
            search: as in Learner.
            training: as in Learner.
            protect: as in Learner, but Branch() if not given: no task that was learned ever answers otherwise.
            image_size: side that all images are resized to; that of the first task's images if not given.
            channels: 1 for grey, 3 for colour; as the first task's images are if not given.
            seed: as in Learner.
            device: where to compute.
        """
        self.directory = Path(directory)
        self._choices = Choices(
            net=cache(net) if callable(net) else net,  # to cut a large module takes seconds
            sharing=sharing,
            search=search,
            training=training,
            protect=protect,
            image_size=image_size,
            channels=channels,
            seed=seed,
            device=device,
        )

    def learn(
        self,
        name: str,
        train: Place | Source | Task,
        *,
        valid: Place | Source | None = None,
        test: Place | Source | None = None,
        restart: bool = False,
        wait: float = 0,
        on_epoch: Callable[[EpochRecord, TimingRecord], None] | None = None,
        note: Callable[[str], None] | None = None,
    ) -> TaskOverview:
        """Add a task. If it was interrupted, the same call goes on to the same bits.

        Args:
            name: of the task.
            train: an image folder ``CLASS/*.png``, or a parquet file or folder in the Hugging Face layout; its own
                splits are used where the next two are not given. Or a task in memory, with its own three splits, which
                is learned under ``name``: for tensors, other image shapes and texts.
            valid: images to stop and choose by; a share of ``train`` if there are none.
            test: images that only measure.
            restart: if the task is unfinished, throw away what was learned of it and begin anew.
            wait: seconds to wait while another process changes the model.
            on_epoch: is told of every epoch.
            note: is told what a person may want to know.

        Raises:
            TaskError: if a task of that name was learned already.
            DataError: if the images are not there or not what they must be.
            ShapeError: if a task in memory has images of another shape than the model takes.
            ConfigError: if what is given is not what the model was made with.
            StorageError: if the folder cannot be used, is held by another process, or holds an unfinished task that
                was begun with something else.
            TrainingError: if training cannot go on.
        """
        check_task_name(name)
        if isinstance(train, Task) and (valid is not None or test is not None):
            raise ConfigError("A task in memory has its own splits; leave valid and test out.")
        make = partial(self._task, name=name, train=train, valid=_source(valid), test=_source(test))
        early: Task | None = None
        if not self.directory.exists():
            early = make(None)  # what is wrong with the images is told before a folder is made
            _check_fits(early, self._choices.fresh(early.image_shape))
        self.settings()  # nothing is touched in a folder that holds something else
        with claimed(self.directory, wait):
            unfinished = Unfinished(self.directory)
            learner = self._grower()
            tell = note or (lambda _: None)
            if self._tidy(unfinished, learner) == name:
                tell(f"Task '{name}' had been learned to its end before the interruption.")
                return self._overview_of(name)
            _check_idle(unfinished, self.directory, name)
            if learner is not None:
                _check_new_name(name, learner.task_names)
                early = None
            task = early or make(learner)
            learner = learner or self._choices.fresh(task.image_shape)
            _check_fits(task, learner)
            _tell_if_dark(task, tell)
            if restart:
                unfinished.remove()
            self._learn(learner, task, unfinished, on_epoch, tell)
            return self._overview_of(name)

    def predict(
        self, name: str, images: Iterable[Place], *, top: int = 1, skip: Skip | None = None
    ) -> Iterator[Prediction]:
        """Answer for image files, a part of them at a time.

        Args:
            name: of the task.
            images: files, and folders of which every image is taken, also in folders below.
            top: how many of the likeliest classes.
            skip: is told of a file that is no image, and the others go on; if not given, it is an error.

        Raises:
            TaskError: if the task was not learned.
            DataError: if an image is not there or cannot be decoded.
            StorageError: if there is no model, or it is damaged.
        """
        check_range("top", top, least=1)
        learner = self._reader(name)
        answers = predicted(learner, name, images, top, skip)

        def explained() -> Iterator[Prediction]:
            with self._computing():
                yield from answers

        return explained()

    def evaluate(self, name: str, path: Place | Source) -> Evaluation:
        """Measure a task's accuracy as the model is now; of divided data the test split counts.

        Raises:
            TaskError: if the task was not learned.
            DataError: if the images are not there, cannot be decoded, or are of other classes than the task's.
            StorageError: if there is no model, or it is damaged.
        """
        learner = self._reader(name)
        channels, size = side_of(learner.net)
        images, labels = _source(path).part(TEST, size, channels).read(learner.classes(name))
        with self._computing():
            return evaluated(learner, name, images, labels)

    def show(self) -> ModelOverview:
        """What the folder holds; StorageError if there is no model, or it is damaged."""
        return undisturbed(self.directory, self._overview)

    def forget(self, name: str, *, wait: float = 0) -> None:
        """Give up a task and what only it used; or, if it is unfinished, what was learned of it so far.

        Raises:
            TaskError: if there is no such task.
            StorageError: if the folder cannot be used, is held by another process, or has another unfinished task.
        """
        if self.settings() is None and not (self.directory.is_dir() and Unfinished(self.directory).task):
            raise StorageError(f"Expected a model in {self.directory}; there is none.")
        with claimed(self.directory, wait):
            unfinished = Unfinished(self.directory)
            learner = self._grower()
            self._tidy(unfinished, learner)
            if unfinished.task != name:
                if learner is None:
                    raise TaskError(f"Task '{name}' has not been learned (unfinished: {unfinished.task}).")
                learner.forget(name)
                _check_idle(unfinished, self.directory, name)
                learner.save(self.directory)
            unfinished.remove()

    def export(self, name: str, format: exporting.Format, out: Place) -> tuple[Path, Path]:
        """Write one task as a plain network; see ``lasem.learner.export``.

        Raises:
            TaskError: if the task was not learned.
            StorageError: also if ``out`` is in the model's own folder, or a file that is no export of the task.
        """
        learner = self._reader(name)
        with self._computing():
            network = learner.plain(name)
        return exporting.export(network, learner.net, name, learner.classes(name), format, out, model=self.directory)

    def settings(self) -> dict[str, Any] | None:
        """What the model was made with (``SETTINGS``), as plain values; None if there is none.

        Raises:
            StorageError: if the folder holds something else, or a damaged model.
        """
        config = stored_config(self.directory)
        return None if config is None else self._settings_in(config)

    def _learn(
        self,
        learner: Learner,
        task: Task,
        unfinished: Unfinished,
        on_epoch: Callable[[EpochRecord, TimingRecord], None] | None,
        tell: Callable[[str], None],
    ) -> None:
        about = self._about(learner, task)
        before = None
        if unfinished.task == task.name:
            unfinished.check_same(about)
            before = unfinished.reached()
            reached = f"after epoch {before.num_epochs}" if before else "before the end of its first epoch"
            tell(f"Task '{task.name}' was interrupted {reached}; going on.")
        else:
            unfinished.begin(about)

        def keep(record: EpochRecord, timing: TimingRecord, state: Callable[[], TrainingState]) -> None:
            unfinished.keep(record.epoch, state())
            if on_epoch is not None:
                on_epoch(record, timing)

        learner.learn(task, on_epoch=keep, resume_from=before.state if before else None)
        learner.save(self.directory)
        unfinished.remove()

    def _task(
        self,
        learner: Learner | None,
        *,
        name: str,
        train: Place | Source | Task,
        valid: Source | None,
        test: Source | None,
    ) -> Task:
        asked, seed = self._choices, self._choices.seed or 0
        if isinstance(train, Task):
            channels, size, _ = train.image_shape
            if asked.image_size not in (None, size) or asked.channels not in (None, channels):
                raise ConfigError(
                    f"A task in memory is taken as it is; its images are of shape {train.image_shape} (channels, "
                    f"height, width). Leave image_size and channels out."
                )
            return replace(train, name=name)
        train = _source(train)
        if learner is not None:
            (channels, size), seed = side_of(learner.net), learner.seed
        else:
            if asked.image_size is not None and asked.channels is not None:
                size, channels = asked.image_size, asked.channels
            else:
                size, channels = train.find_shape(asked.image_size)
                channels = asked.channels or channels
        return task_from(name, train, valid, test, image_size=size, channels=channels, seed=seed)

    def _grower(self) -> Learner | None:
        """The model as it is, to be changed; None if there is none yet."""
        stored = self.settings()
        if stored is None:
            return None
        self._choices.check(self.directory, stored)
        return self._choices.load(self.directory, stored, to_learn=True)

    def _reader(self, name: str | None = None) -> Learner:
        """The model as it is, to be asked; of a task that is named, all is read now."""

        def read(config: dict[str, Any]) -> Learner:
            learner = self._choices.load(self.directory, self._settings_in(config), to_learn=False)
            if name is not None:
                learner.read(name)
            return learner

        return undisturbed(self.directory, read)

    def _tidy(self, unfinished: Unfinished, learner: Learner | None) -> str | None:
        """Remove what interruptions have left behind, but for what a learning can go on from.

        Returns:
            The task whose learning was stopped between its last two steps: the model has it. None if there is none.
        """
        sweep(self.directory)
        if learner is None or unfinished.task not in learner.task_names:
            return None
        ended = unfinished.task
        unfinished.remove()
        return ended

    def _about(self, learner: Learner, task: Task) -> dict[str, Any]:
        """Everything that the result of learning depends on."""
        stored = stored_config(self.directory)
        about = {"task": task.name, "model": "new" if stored is None else stored.get("checksum", "of an older format")}
        about |= called("net", learner.net.description()) | {"seed": learner.seed}
        for part in CHOSEN:
            about |= plain_choice(part, getattr(learner, part))
        return about | about_images(task)

    def _overview(self, config: dict[str, Any]) -> ModelOverview:
        learner = self._reader()
        unfinished = Unfinished(self.directory).task
        with damage_told(f"A task of {self.directory} cannot be read"):  # or it was forgotten since the index was read
            tasks = tuple(
                TaskOverview.of(
                    description_of(self.directory, entry),
                    learner.num_parameters(entry["name"]),
                    keeps=learner.protect.keeps,
                )
                for entry in config["tasks"]
            )
        return ModelOverview(
            directory=str(self.directory),
            image_shape=learner.net.image_shape,
            depth=learner.net.depth,
            settings=self._settings_in(config),
            tasks=tasks,
            keeps=learner.protect.keeps,
            num_shared_parameters=learner.num_shared_parameters(),
            num_kept_parameters=learner.num_kept_parameters(),
            num_parameters=learner.num_parameters(),
            num_bytes=bytes_in(self.directory),
            unfinished=None if unfinished in learner.task_names else unfinished,
        )

    def _overview_of(self, name: str) -> TaskOverview:
        """Of the task that was just learned; no other is read."""

        def read(config: dict[str, Any]) -> TaskOverview:
            entry = next(entry for entry in config["tasks"] if entry["name"] == name)
            return TaskOverview.of(description_of(self.directory, entry), int(entry["num_parameters"]), keeps=True)

        return undisturbed(self.directory, read)

    def _settings_in(self, config: Mapping[str, Any]) -> dict[str, Any]:
        if "method" in config:
            raise StorageError(f"{self.directory} holds a baseline's model, which cannot be used so.")
        return _settings_in(config)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """A network from a stranger may be one that cannot be computed."""
        try:
            yield
        except (RuntimeError, TypeError, IndexError, OverflowError, MemoryError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise StorageError(f"The network of the model in {self.directory} cannot be computed: {reason}") from error


def _settings_in(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a model's index; the first format knew no protection."""
    given = {"protect": {"name": Unprotected.name}, **config}
    missing = next((part for part in SETTINGS if part not in given), None)
    if missing is not None:
        raise StorageError(f"Expected {missing} in the index of the model; got none. The model is damaged.")
    wrong = next((part for part in SETTINGS[:-1] if not isinstance(given[part], dict)), None)
    shape = given["net"].get("image_shape") if wrong is None else None
    if not (isinstance(shape, list) and len(shape) == 3 and all(isinstance(size, int) for size in shape)):
        raise StorageError(f"Expected settings of the {wrong or 'net'} in the index of the model; it is damaged.")
    given["training"] = {**to_plain(TrainingConfig()), **given["training"]}  # there may be more of them by now
    return {part: given[part] for part in SETTINGS}


_DARK = 2**12 >> 8


@overload
def _source(path: Place | Source) -> Source: ...
@overload
def _source(path: Place | Source | None) -> Source | None: ...
def _source(path: Place | Source | None) -> Source | None:
    return Source(path=str(path)) if isinstance(path, str | Path) else path


def _check_fits(task: Task, learner: Learner) -> None:
    """Raise ShapeError or DataError if the network does not take the images: said before the task is begun."""
    check_new(task, learner.task_names, learner.net.image_shape)
    parts = {"train": task.train, "valid": task.valid, "test": task.test}
    check_texts(learner.net.vocabulary, {f"texts (task '{task.name}', split '{p}')": s for p, s in parts.items()})


def _tell_if_dark(task: Task, tell: Callable[[str], None]) -> None:
    """Of 16-bit grey images the upper 8 bits are kept: of 12-bit ones in 16 bits, as X-rays often are, only 4."""
    images = task.train.images
    if images.take(torch.tensor([0])).dtype != torch.uint8 or float(task.train.mean.max()) * 255 >= _DARK:
        return
    most = max(int(chunk.max()) for chunk in in_chunks(images))
    if most < _DARK:
        tell(
            f"The brightest pixel of all training images of '{task.name}' is {most} of 255. Of 16-bit grey images only "
            f"the upper 8 bits are kept: if they hold fewer bits than 16 (below {256 * _DARK}), scale them up first."
        )


def _check_idle(unfinished: Unfinished, directory: Path, name: str) -> None:
    """Raise StorageError if another task is unfinished."""
    if unfinished.task not in (None, name):
        raise StorageError(
            f"Task '{unfinished.task}' in {directory} is not finished: its learning was interrupted. Go on with it by "
            f"the command that began it, or throw it away: lasem forget {directory} --task {unfinished.task}."
        )


def _check_new_name(name: str, learned: tuple[str, ...]) -> None:
    """Raise TaskError for a name that was learned, or differs from one in capital letters alone."""
    for other in learned:
        if name.lower() == other.lower():  # one folder for both, on some systems
            raise TaskError(
                f"Task '{other}' has been learned already. Forget it first, or give the new one another name."
            )
