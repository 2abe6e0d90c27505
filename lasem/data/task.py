"""Tasks, streams of tasks, readers that open streams, and the random generators that readers draw from."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lasem.data.images import AbstractImages, Scale, TensorImages, as_images, as_labels, in_chunks, on_one_scale
from lasem.data.split import Part, Split, Standardise, check_labels, make_splits
from lasem.data.tokens import PADDING, Texts, Vocabulary, as_tokens, said_of_cut
from lasem.errors import ConfigError, DataError, nearest
from lasem.settings import Range

Count = Annotated[int, Range(least=1)]
Item = TypeVar("Item")

_MOST_LETTERS = 1000
"""Of a class's name; no file system has longer ones."""
_NAME = re.compile(r"(?=.{1,100}\Z)[A-Za-z0-9._-]+( +[A-Za-z0-9._-]+)*")


@final
class Truth(NamedTuple):
    """What is known of a task that was made to be like an earlier one, for streams that try choices out."""

    source: str | None
    """The name of the earlier task that helps; None if none does."""
    layers: Literal["all", "last", "none"]
    """Which of its layers help."""


@final
@dataclass(frozen=True, eq=False)
class Task:
    """Images of some classes, for training, for validation and for testing, that are learned at once.

    Raises:
        DataError: if the name cannot name a task, if there are fewer than two classes or two of the same name, if a
            split is empty or holds a label that is no class, or if the splits' images differ in shape or scale.
    """

    name: str
    """Letters, digits, '.', '_' and '-', and spaces between them."""
    classes: tuple[str, ...]
    """The name of each class; label k means ``classes[k]``."""
    train: Split
    valid: Split
    test: Split
    left_out: tuple[str, ...] = ()
    """What of the place that the images come from is not used, in words such as "2 damaged"."""
    truth: Truth | None = None
    """Which earlier task helps, if that is known."""

    def __post_init__(self) -> None:
        check_task_name(self.name)
        if len(self.classes) < 2:
            raise DataError(f"Task '{self.name}' needs at least 2 classes; got {len(self.classes)}: {self.classes}.")
        check_classes(self.classes, f"class of task '{self.name}'")
        for part, split in zip(Part, (self.train, self.valid, self.test), strict=True):
            if len(split) == 0:
                raise DataError(f"Task '{self.name}' needs at least one image in each split; '{part.word}' is empty.")
            if split.images.shape != self.image_shape:
                raise DataError(
                    f"Task '{self.name}' needs images of one shape: those of 'train' are {self.image_shape} (channels, "
                    f"height, width), those of '{part.word}' {split.images.shape}. Resize or convert one of them."
                )
            if split.images.scale != self.scale:
                raise DataError(
                    f"Task '{self.name}' needs images on one scale: white is {self.scale} in those of 'train', "
                    f"{split.images.scale} in those of '{part.word}'. Convert one of them."
                )
            check_labels(split.labels, len(self.classes), f" (task '{self.name}', split '{part.word}')")

    @property
    def scale(self) -> float | None:
        """The value of white in the images; see ``AbstractImages.scale``."""
        return self.train.images.scale

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        return self.train.images.shape

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    def label_of(self, class_name: str) -> int:
        """Return the label, 0 to ``num_classes - 1``, of a class; DataError if the task has no such class."""
        if class_name not in self.classes:
            raise DataError(
                f"Task '{self.name}' has no class '{class_name}' (classes: {', '.join(self.classes)})."
                f"{nearest(class_name, self.classes)}"
            )
        return self.classes.index(class_name)

    def names_of(self, labels: Tensor) -> list[str]:
        """Return the class name of each label."""
        check_labels(labels, len(self.classes), f" (task '{self.name}')")
        return [self.classes[label] for label in labels.tolist()]

    @classmethod
    def from_tensors(
        cls,
        name: str,
        *,
        train: tuple[Any, Any],
        valid: tuple[Any, Any],
        test: tuple[Any, Any],
        classes: Sequence[str] | None = None,
        standardise: Standardise = "train",
        scale: Scale = "auto",
    ) -> "Task":
        """Make a task of tensors or arrays.

        Args:
            name: see Task.
            train: images and labels; images (N, channels, height, width), or (N, height, width) for grey, uint8 or
                floating; labels (N,), integers or class names.
            valid: the same.
            test: the same.
            classes: the name of each class in the order of the model's answers, if labels are names or positions in
                it. Without it, names are taken in alphabetical order; integers may be any, become 0, 1, ... in their
                own order, and each is its class's name.
            standardise: see ``make_splits``.
            scale: the value of white in the images of all splits, where black is 0: 255, 1, 16, ... By it, image files
                are turned into what the task learned from. ``"auto"``: 255 for uint8, unless the training images go
                to 1, 15 or 16; for floats 1 if no training image has more, 255 if the largest value is from 128 to
                255, or the largest value if images of few or many bits go to it (15, 16, 31, 63, 100, 127, 1023,
                4095, ...). ``"none"``, and floats that go below 0
                or to another value: there is no such scale, and the task answers for tensors alone.

        Raises:
            DataError: if anything is not as described here; the message names what.
        """
        where = [f"task '{name}', split '{part.word}'" for part in Part]
        parts = [train, valid, test]
        if all(is_named(labels) for _, labels in parts):
            classes = sorted({str(label) for label in train[1]}) if classes is None else classes
            parts = [(s[0], _numbered(s[1], classes, place)) for s, place in zip(parts, where, strict=True)]
        pairs = [pair(*split, place) for split, place in zip(parts, where, strict=True)]
        for (images, _), place in zip(pairs, where, strict=True):
            if len(images) == 0:  # before anything is computed from it
                raise DataError(f"Expected at least one image in each split; there are none ({place}).")
        scaled = on_one_scale([images for images, _ in pairs], where, scale)
        pairs = [(images, labels) for images, (_, labels) in zip(scaled, pairs, strict=True)]
        if classes is None:
            numbers = distinct(pairs[0][1], where[0])
            classes = [str(number) for number in numbers.tolist()]
            pairs = [(s[0], _positions(s[1], numbers, place)) for s, place in zip(pairs, where, strict=True)]
        return make_task(name, classes, pairs, standardise)

    @classmethod
    def from_tokens(
        cls,
        name: str,
        *,
        train: tuple[Any, Any],
        valid: tuple[Any, Any],
        test: tuple[Any, Any],
        length: int,
        truncate: bool = False,
        classes: Sequence[str] | None = None,
    ) -> "Task":
        """Make a task of texts, whose token ids take the place of images; for networks that read such, see ``nets``.

        Arguments and errors are those of ``from_tensors``, but that texts take the place of images: what a tokenizer
        returns for them, or anything that ``as_tokens`` takes. ``length``, which is the one that the network was made
        for, and ``truncate`` are those of ``as_tokens``.
        """
        parts: Any = {
            part: (as_tokens(some, length=length, truncate=truncate, what=f"texts (task '{name}', split '{part}')"), of)
            for part, (some, of) in {"train": train, "valid": valid, "test": test}.items()
        }
        return cls.from_tensors(name, **parts, classes=classes, standardise="none", scale="none")

    @classmethod
    def from_texts(
        cls,
        name: str,
        *,
        train: tuple[Sequence[str], Any],
        valid: tuple[Sequence[str], Any],
        test: tuple[Sequence[str], Any],
        classes: Sequence[str] | None = None,
    ) -> "Task":
        """Make a task of texts as they are, for networks that have a tokenizer; see ``lasem.nets.from_transformers``.

        Arguments and errors are those of ``from_tensors``, but that texts take the place of images.
        """
        given = {"train": train, "valid": valid, "test": test}
        texts = {part: Texts(some, f"texts (task '{name}', split '{part}')") for part, (some, _) in given.items()}
        parts: Any = {part: (torch.zeros(len(texts[part]), 1, 1, 1), labels) for part, (_, labels) in given.items()}
        task = cls.from_tensors(name, **parts, classes=classes, standardise="none", scale="none")
        new: Any = {part: replace(getattr(task, part), images=some) for part, some in texts.items()}
        return replace(task, **new)

    def in_tokens(self, vocabulary: Vocabulary | None, length: int) -> "Task":
        """Return the task with the token ids of its texts; itself if it has no ``Texts``.

        The ``vocabulary`` of a network has its tokenizer, None if it takes images; texts longer than ``length`` are
        cut, and ``left_out`` says how many. DataError if there are texts, and no tokenizer.
        """
        splits = dict.fromkeys((self.train, self.valid, self.test))
        if any(split.images.texts is None for split in splits):
            return self
        if vocabulary is None:
            raise DataError(
                f"Task '{self.name}' has texts, and the network takes images. Choose a network for texts: --net "
                f"hf:FOLDER (lasem.nets.from_transformers)."
            )
        what = f"texts (task '{self.name}')"
        read = {split: vocabulary.read(split.images.texts or (), length, what) for split in splits}
        longest = max(tokens.shape[3] for tokens, _ in read.values())

        def padded(split: Split) -> Split:
            tokens, _ = read[split]
            tokens = F.pad(tokens, (0, longest - tokens.shape[3]), value=PADDING)
            return replace(split, images=TensorImages(tokens, "none"))

        said = said_of_cut(sum(num_cut for _, num_cut in read.values()), sum(map(len, splits)), length)
        return replace(self.with_splits(padded), left_out=(*self.left_out, *said))

    def with_splits(self, change: Callable[[Split], Split]) -> "Task":
        """Return the task with each split changed."""
        once = cache(change)  # two splits may be one object
        return replace(self, train=once(self.train), valid=once(self.valid), test=once(self.test))


@final
class TaskStream:
    """Tasks in the order of learning, each read when it is reached; every iteration starts afresh.

    Args:
        name: what records and task names call the stream.
        start: begins an iteration.
        num_tasks: how many tasks there will be; None: not known, and nothing may need to know.
        task_at: makes one task by its index, where that is possible without making those before it.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[], Iterable[Task]],
        *,
        num_tasks: int | None = None,
        task_at: Callable[[int], Task] | None = None,
    ) -> None:
        self.name = name
        self.num_tasks = num_tasks
        self._start = start
        self._task_at = task_at

    @classmethod
    def of(cls, tasks: Sequence[Task], *, name: str = "tasks") -> "TaskStream":
        """Make a stream of tasks that are there already; DataError if two have the same name."""
        kept = tuple(tasks)
        check_unique([task.name for task in kept], "task of a stream")
        return cls(name, lambda: kept, num_tasks=len(kept), task_at=kept.__getitem__)

    @classmethod
    def made_by(cls, task_at: Callable[[int], Task], *, name: str, num_tasks: int) -> "TaskStream":
        """Make a stream of tasks that ``task_at`` makes, each from its index alone."""
        return cls(name, lambda: map(task_at, range(num_tasks)), num_tasks=num_tasks, task_at=task_at)

    def __iter__(self) -> Iterator[Task]:
        names: set[str] = set()
        for task in self._start():
            if task.name in names:
                raise DataError(
                    f"Expected a different name for each task of stream '{self.name}'; got '{task.name}' twice."
                )
            names.add(task.name)
            yield task

    def __len__(self) -> int:
        if self.num_tasks is None:
            raise _UnknownLengthError(f"How many tasks stream '{self.name}' has is not known. Iterate over it instead.")
        return self.num_tasks

    def __getitem__(self, index: int) -> Task:
        """Make a task; an index below 0 counts from the end, if that is known. DataError if there is no such task."""
        place = index + len(self) if index < 0 else index
        if place >= 0 and (self.num_tasks is None or place < self.num_tasks):
            if self._task_at is not None:
                return self._task_at(place)
            for task in islice(self, place, None):
                return task
        known = "" if self.num_tasks is None else f" of {self.num_tasks} tasks"
        raise DataError(f"Expected the index of a task in stream '{self.name}'{known}, counted from 0; got {index}.")


class _UnknownLengthError(DataError, TypeError):
    """TypeError as well: ``list(stream)`` asks for a length first and goes on without one only after a TypeError."""


class AbstractReader(ABC):
    """Settings from which a stream can be opened. A subclass is a frozen dataclass, as in ``docs/extending.md``.

    A run keeps the fields in its ``config.yaml`` and goes on only with the same ones: numbers, text, paths and
    dataclasses as they are, tensors and arrays by a checksum, and tuples, lists and dictionaries of all these.
    """

    name: ClassVar[str]
    """The name of this kind of stream on the command line and in folders of runs. A user's own may have the same name:
    settings name its module as well."""

    @abstractmethod
    def open(self, seed: int) -> TaskStream:
        """Open the stream and check the data; the same seed always results in the same bits.

        Raises:
            DataError: if the data are not there or not what they must be.
            ConfigError: if the data cannot be cut as the settings ask.
        """


def child_generator(seed: int, *path: int) -> torch.Generator:
    """Return the generator of ``path`` (say: purpose, task index) below ``seed``, an integer of at least 0.

    What it draws does not depend on how many numbers other paths drew before.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ConfigError(f"A seed must be an integer of at least 0; got {seed!r}.")
    state = np.random.SeedSequence(entropy=seed, spawn_key=path).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def make_task(
    name: str, classes: Sequence[str], parts: Sequence[tuple[AbstractImages, Tensor]], standardise: Standardise
) -> Task:
    """Make a task of the images and labels of its three splits; see ``Task`` and ``make_splits``.

    Images that stay in files are all decoded once: damage is found before the task is trained, not at its end.
    """
    for images, _ in parts:
        if images.in_files:
            for _ in in_chunks(images):
                pass
    return Task(name, tuple(classes), *make_splits(parts, standardise))


def task_by_class(
    name: str,
    classes: Sequence[str],
    chosen: Sequence[Sequence[Sequence[Item]]],
    take: Callable[[Part, list[Item]], AbstractImages],
    standardise: Standardise,
) -> Task:
    """Make a task of the images chosen for each class and split, positions or files that ``take`` reads."""
    parts = []
    for part in Part:
        of_part = [of_class[part] for of_class in chosen]
        labels = torch.arange(len(of_part)).repeat_interleave(torch.tensor([len(items) for items in of_part]))
        parts.append((take(part, [item for items in of_part for item in items]), labels))
    return make_task(name, classes, parts, standardise)


def dealt(items: Sequence[Item], counts: Sequence[int], generator: torch.Generator) -> list[list[Item]]:
    """Shuffle items, and deal so many to each split."""
    order = torch.randperm(len(items), generator=generator)[: sum(counts)]
    return [[items[position] for position in part.tolist()] for part in torch.split(order, list(counts))]


def task_on(task: Task, device: torch.device, share: float) -> Task:
    """Return the task with its training and validation images on the device, as far as they fit there.

    Pixels stay as they are stored, uint8 as uint8, and are standardised in every epoch as before, so that no result
    changes. The memory, a ``share`` of what is free at most, is the returned task's: it is free again when that is
    gone. On a CPU, and where it is not known what is free, it is the task itself.
    """
    free = free_bytes(device)
    if free is None:
        return task
    left = share * free

    def placed(split: Split) -> Split:
        nonlocal left
        if split not in (task.train, task.valid) or split.num_bytes > left:
            return split
        left -= split.num_bytes
        return split.on(device)

    return task.with_splits(placed)


def free_bytes(device: torch.device) -> int | None:
    """Return the memory that tensors may still take on a GPU; None for a CPU, which holds images already."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    # what torch has taken from the device and does not use at present
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def check_task_name(name: str) -> None:
    """Raise DataError unless a name can name a task."""
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise DataError(
            f"Expected a task name of 1 to 100 letters (a to z), digits, '.', '_' or '-', perhaps with spaces between "
            f"them; got {name!r}."
        )


def check_classes(names: Sequence[str], what: str = "class") -> None:
    """Raise DataError for names of classes that come twice, are empty, or are no names but long texts."""
    check_unique(names, what)
    wrong = next((name for name in names if not 0 < len(name) <= _MOST_LETTERS), None)
    if wrong is not None:
        raise DataError(
            f"Expected a name of 1 to {_MOST_LETTERS:,} characters for each {what}; got one of {len(wrong):,}"
            f"{f', {wrong[:20]!r}...' if wrong else ''}."
        )


def check_unique(names: Sequence[str], what: str) -> None:
    """Raise DataError if a name comes twice."""
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise DataError(f"Expected a different name for each {what}; these come more than once: {', '.join(twice)}.")


def pair(images: Any, labels: Any, where: str) -> tuple[TensorImages, Tensor]:
    """Make images and int64 labels of tensors or arrays; DataError if they are not that, or of unlike numbers."""
    checked, numbers = as_images(images, f"images ({where})"), as_labels(labels, f"labels ({where})")
    if len(checked) != len(numbers):
        raise DataError(
            f"Expected one label for each image ({where}); got {len(checked)} images and {len(numbers)} labels."
        )
    return checked, numbers


def distinct(labels: Tensor, where: str) -> Tensor:
    """Return the numbers that are labels, rising; DataError if one of them stands for none, next to a class 0."""
    numbers: Tensor = torch.unique(labels)
    none = numbers[torch.isin(numbers, torch.tensor([-100, -1]))]
    if len(none) and 0 in numbers:
        raise DataError(
            f"Expected the number of a class as each label ({where}); got {int(none[0])}, which stands for no label. "
            f"Leave these images out, or name the classes by text."
        )
    return numbers


def is_named(labels: Any) -> bool:
    """Whether labels are class names rather than numbers."""
    return not isinstance(labels, Tensor) and len(labels) > 0 and all(isinstance(label, str) for label in labels)


def _numbered(labels: Sequence[str], classes: Sequence[str], where: str) -> list[int]:
    position = {name: i for i, name in enumerate(classes)}
    unknown = next((label for label in labels if label not in position), None)
    if unknown is not None:
        raise DataError(
            f"Expected only the classes {', '.join(classes)} ({where}); got '{unknown}'.{nearest(unknown, classes)}"
        )
    return [position[label] for label in labels]


def _positions(labels: Tensor, numbers: Tensor, where: str) -> Tensor:
    unknown = labels[~torch.isin(labels, numbers)]
    if len(unknown):
        raise DataError(
            f"Expected only labels that the training images have, {numbers.tolist()} ({where}); got {int(unknown[0])}."
        )
    return torch.searchsorted(numbers, labels)
