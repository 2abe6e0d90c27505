"""Labelled images and their cut, by a seed, into tasks with disjoint classes.

The classes of the k-th task, and the images of a class that train, validate and test, depend on the seed alone: not on
the number of tasks, and for a class not on the task that it is in.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Annotated, Any, final

import torch
from torch import Tensor

from lasem.data.decode import DamagedError
from lasem.data.images import AbstractImages, SelectedImages, in_chunks
from lasem.data.split import Part, Standardise, StandardiseSettings, check_labels
from lasem.data.task import Count, Task, TaskStream, check_classes, child_generator, make_task
from lasem.errors import ConfigError, DataError, nearest
from lasem.settings import Range, Settings

_UNLABELLED = ("", "-1", "-1.0", "-100", "nan", "null", "<na>")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,9})?", re.ASCII | re.IGNORECASE)
_CLASSES, _IMAGES = 0, 1  # what a child generator is for
_DECODED_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class CutCounts(Settings):
    """How many tasks, classes and images a data set is cut into."""

    num_tasks: Count | None = None
    """Number of tasks; None: as many as there are classes for. Classes left over are not used."""
    classes_per_task: Annotated[int, Range(least=2)] | None = None
    """Classes in each task, drawn without replacement over all tasks; at least 2. None: 10, or all of fewer."""
    train_per_class: Count | None = None
    """Training images of each class; None: all that are left."""
    valid_per_class: Count | None = None
    """Validation images of each class. None: all of the validation split. If the data have none, they are taken from
    the training images: 15 % of those for training and validation together (3 of 20), at least 1."""
    test_per_class: Count | None = None
    """Test images of each class. None: all of the test split. If the data have none, they are taken from the training
    images: 20 %, at least 1."""


@dataclass(frozen=True, kw_only=True)
class CutSettings(CutCounts, StandardiseSettings):
    """How a data set of images is cut into tasks. Readers inherit these settings."""


@final
@dataclass(frozen=True, eq=False)
class TaskCut:
    """The images of one task. Tuples are in the order train, valid, test."""

    classes: tuple[str, ...]
    positions: tuple[Tensor, ...]
    """Positions in the data set, ascending."""
    labels: tuple[Tensor, ...]
    """The label of each position, 0 to the number of the task's classes - 1."""


@final
@dataclass(frozen=True, eq=False)
class Labelled:
    """N images with labels and splits, of which only those that are taken need to be decoded."""

    labels: Tensor
    """int64 (N,), positions in ``class_names``."""
    parts: Tensor
    """int64 (N,), the ``Part`` that the data set has each image in."""
    class_names: Sequence[str]
    """Names of the classes; some may have no image."""
    take: Callable[[Tensor], AbstractImages]
    """Returns the images at some positions, ascending."""
    where: str = "the data"
    """What messages call the place of the images."""
    left_out: tuple[tuple[Part, str], ...] = ()
    """Of each file that is not used the split and the reason."""
    unit: str = "images"
    """What messages call the images."""
    name_of: Callable[[int], str] = "image {}".format
    """Returns what a person calls the image at a position: its file, its row in a table, or the text that it is."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes that have images."""
        return tuple(self.class_names[number] for number in torch.unique(self.labels).tolist())

    def only(self, chosen: Tensor) -> "Labelled":
        """Select the images at some positions, ascending, or where a mask is set."""
        positions = chosen.nonzero()[:, 0] if chosen.dtype == torch.bool else chosen
        return replace(
            self,
            labels=self.labels[positions],
            parts=self.parts[positions],
            take=lambda used: self.take(positions[used]),
            name_of=lambda position: self.name_of(int(positions[position])),
        )

    def damaged(self) -> dict[int, tuple[str, str]]:
        """Decode all images; return the positions of those that cannot be, with their names and the reasons."""
        found: dict[int, tuple[str, str]] = {}
        for _ in self._decoded(found):
            pass
        return dict(sorted(found.items()))

    def undamaged(self) -> "Labelled":
        """Leave out images that cannot be decoded."""
        damaged = self.damaged()
        kept = self.only(torch.tensor([k not in damaged for k in range(len(self.labels))]))
        lost = [name for name in self.classes if name not in kept.classes]
        if lost:
            raise DataError(
                f"Class '{lost[0]}' has too few {self.unit}: all of them in {self.where} are damaged. Replace them, or "
                f"remove the class."
            )
        return replace(kept, left_out=(*self.left_out, *((Part(int(self.parts[k])), "damaged") for k in damaged)))

    def first(self, number: int) -> Tensor:
        """Return the first image of a class that can be decoded."""
        positions = (self.labels == number).nonzero()
        for position in positions:
            with suppress(DamagedError):
                return self.take(position).take(torch.tensor([0]))[0]
        raise DamagedError(self.only(positions[:, 0]).damaged())

    def first_sizes(self) -> list[tuple[int, int]]:
        """Return the heights and widths of the first image of each class, of at most 20 classes, rising."""
        firsts = [self.first(number) for number in torch.unique(self.labels)[:20].tolist()]
        return sorted({(image.shape[1], image.shape[2]) for image in firsts})

    def in_colour(self) -> bool:
        """Whether any pixel that ``take`` returns is not grey. What is damaged is passed over."""
        return any(bool((images != images[:, :1]).any()) for images in self._decoded({}))

    def _decoded(self, damaged: dict[int, tuple[str, str]]) -> Iterator[Tensor]:
        """Decode all images, some at a time; add to ``damaged`` what ``damaged`` returns."""
        for positions in torch.split(torch.arange(len(self.labels)), _DECODED_AT_ONCE):
            while len(positions):
                try:
                    yield from list(in_chunks(self.take(positions)))
                    break
                except DamagedError as error:
                    damaged |= {int(positions[k]): why for k, why in error.reasons.items()}
                    positions = positions[[k not in error.reasons for k in range(len(positions))]]

    def read(self, classes: Sequence[str]) -> tuple[AbstractImages, Tensor]:
        """Take all images, with each one's position in ``classes``; DataError for other classes and damaged images."""
        unknown = next((name for name in self.classes if name not in classes), None)
        if unknown is not None:
            raise DataError(
                f"Expected only the task's classes ({', '.join(classes)}) in {self.where}; got '{unknown}'."
                f"{nearest(unknown, classes)}"
            )
        place = {name: number for number, name in enumerate(classes)}
        numbers = torch.tensor([place.get(name, -1) for name in self.class_names])
        try:
            return self.take(torch.arange(len(self.labels))), numbers[self.labels]
        except DamagedError as error:
            raise DamagedError(self.damaged()) from error

    def disjoint(self, settings: CutSettings, seed: int, name: str) -> TaskStream:
        """Make the stream of tasks with disjoint classes."""
        return self.stream(cut(settings, self, seed), name=name, standardise=settings.standardise)

    def stream(self, cuts: Sequence[TaskCut], *, name: str, standardise: Standardise) -> TaskStream:
        """Make the stream of tasks called ``name-0``, ``name-1``, ...; all images of all tasks are taken at once."""
        used = torch.unique(torch.cat([of_part for task in cuts for of_part in task.positions]))
        images, left_out = self.take(used), counted(self.left_out)

        def task_at(index: int) -> Task:
            task = cuts[index]
            chosen = [SelectedImages(images, torch.searchsorted(used, of_part)) for of_part in task.positions]
            parts = list(zip(chosen, task.labels, strict=True))
            return replace(make_task(f"{name}-{index}", task.classes, parts, standardise), left_out=left_out)

        return TaskStream.made_by(task_at, name=name, num_tasks=len(cuts))


def cut(settings: CutCounts, data: Labelled, seed: int) -> tuple[TaskCut, ...]:
    """Choose the classes and images of every task. A class without any image is passed over.

    DataError if a class that is drawn has too few images, ConfigError if there are too few classes for the tasks.
    """
    present = torch.unique(data.labels)
    per_task = settings.classes_per_task or max(2, min(10, len(present)))
    most = len(present) // per_task
    if most == 0:
        raise ConfigError(
            f"classes_per_task must be at most the number of classes that have {data.unit}, {len(present)}; got "
            f"{per_task}."
        )
    num_tasks = most if settings.num_tasks is None else settings.num_tasks
    if num_tasks > most:
        raise ConfigError(
            f"num_tasks must be at most {most}, for tasks of {per_task} disjoint classes out of "
            f"{len(present)}; got {num_tasks}. Ask for fewer tasks, or fewer classes_per_task."
        )
    drawn = present[torch.randperm(len(present), generator=child_generator(seed, _CLASSES))]
    chosen = torch.split(drawn[: num_tasks * per_task], per_task)
    return cut_classes(settings, data, seed, [task.tolist() for task in chosen])


def cut_classes(settings: CutCounts, data: Labelled, seed: int, chosen: Sequence[Sequence[int]]) -> tuple[TaskCut, ...]:
    """Choose the images of tasks whose classes are known, which may be in several tasks; see ``cut``.

    A class has the same images in every task that it is in.
    """
    check_classes(data.class_names)
    check_labels(data.labels, len(data.class_names))
    groups = data.labels * len(Part) + data.parts
    sizes = groups.bincount(minlength=len(data.class_names) * len(Part)).tolist()
    by_group = torch.split(groups.argsort(stable=True), sizes)
    present = {part for part in Part if bool((data.parts == part).any())}

    tasks = []
    for classes in chosen:
        numbers = sorted(classes)
        images: list[tuple[Tensor, ...]] = []
        for number in numbers:
            shuffled = []
            for part in Part:
                group = by_group[number * len(Part) + part]
                generator = child_generator(seed, _IMAGES, number, part)
                shuffled.append(group[torch.randperm(len(group), generator=generator)])
            images.append(_cut_class(settings, data.class_names[number], shuffled, present, data.unit))
        positions = tuple(torch.cat([of_class[part] for of_class in images]).sort().values for part in Part)
        labels = tuple(torch.searchsorted(torch.tensor(numbers), data.labels[of_part]) for of_part in positions)
        tasks.append(TaskCut(tuple(data.class_names[number] for number in numbers), positions, labels))
    return tuple(tasks)


def _cut_class(
    settings: CutCounts, name: str, images: Sequence[Tensor], present: set[Part], unit: str
) -> tuple[Tensor, ...]:
    """Cut the shuffled images of one class. Test comes first: what is tested on is the same whatever is trained on."""
    train, valid, test = images
    num_test, num_valid, num_train = settings.test_per_class, settings.valid_per_class, settings.train_per_class
    taken = {}  # from the training split
    if Part.TEST in present:
        num_test = num_test or max(1, len(test))
        _check_enough(name, unit, Part.TEST, len(test), {"test": num_test})
    else:
        taken["test"] = num_test = num_test or max(1, round(0.2 * len(train)))
        test, train = train[:num_test], train[num_test:]
    if Part.VALID in present:
        num_valid = num_valid or max(1, len(valid))
        _check_enough(name, unit, Part.VALID, len(valid), {"validate": num_valid})
    else:
        num_valid = num_valid or max(1, round(0.15 * len(train) if num_train is None else num_train * 15 / 85))
        taken = {"validate": num_valid, **taken}
        valid, train = train[:num_valid], train[num_valid:]
    _check_enough(name, unit, Part.TRAIN, len(images[Part.TRAIN]), {"train": num_train or 1, **taken})
    return train[:num_train], valid[:num_valid], test[:num_test]


def _check_enough(name: str, unit: str, part: Part, available: int, needed: dict[str, int]) -> None:
    if available < sum(needed.values()):
        wanted = ", ".join(f"{count} to {use}" for use, count in needed.items())
        raise DataError(
            f"Class '{name}' has too few {unit}: its {part.word} split must hold at least {sum(needed.values())} "
            f"({wanted}); it holds {available}. Add {unit}, or ask for fewer of each class."
        )


def as_label(value: Any) -> Any:
    """Return a cell of labels as a class is called: text without space around it, whole numbers as integers.

    None: it stands for no label, as -1 and -100 do on the Hugging Face Hub, and NaN in what pandas writes.
    """
    if isinstance(value, str):
        value = value.strip()
        return None if value.lower() in _UNLABELLED else value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if value in (None, -1, -100) or value != value else value


def check_spellings(labels: Iterable[str], where: str) -> None:
    """Raise DataError if all labels of a column are numbers and two are one number, such as 1 and 1.0."""
    ordered, spelled = sorted(set(labels)), dict[Decimal, str]()
    if not all(map(_NUMBER.fullmatch, ordered)):
        return
    for label in ordered:
        if (other := spelled.setdefault(Decimal(label), label)) != label:
            raise DataError(
                f"Expected one spelling of each class in {where}, where all labels are numbers; got '{other}' and "
                f"'{label}'. Write both in one way; if they are two classes, call them by words."
            )


def counted(left_out: Iterable[tuple[Part, str]]) -> tuple[str, ...]:
    """Count what is left out, by reason: ``("2 damaged", "1 dangling link")``."""
    return tuple(f"{num:,} {why}" for why, num in sorted(Counter(why for _, why in left_out).items()))


def and_left_out(left_out: Sequence[str]) -> str:
    """Return the end of a sentence that says what is left out, if anything is."""
    return f"; left out: {', '.join(left_out)}" if left_out else ""
