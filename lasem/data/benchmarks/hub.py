"""CIFAR-100, CIFAR-10 and MNIST, from the parquet files of the Hugging Face Hub.

CIFAR-100 with 4 % of the data, as 10, 20 or 40 tasks of ten classes, is the stream of LASEM's first table. The other
two are tasks with two answers, as in the code of LASEM's authors: five tasks tell apart two classes each, 0 from 1, 2
from 3, and so on; ten tasks tell one class from all others. Half of a task's images, as far as there are so many, are
of the first answer.

.. [Krizhevsky2009] A. Krizhevsky. Learning Multiple Layers of Features from Tiny Images. Technical report, 2009.
.. [LeCun1998] Y. LeCun, L. Bottou, Y. Bengio, P. Haffner. Gradient-Based Learning Applied to Document Recognition.
   Proceedings of the IEEE 86(11), 1998.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, final

import torch
from torch import Tensor

from lasem.data.benchmarks.source import BenchmarkReader, Layout
from lasem.data.decode import Channels
from lasem.data.labelled import CutSettings, Labelled, TaskCut, cut_classes
from lasem.data.parquet import ParquetReader
from lasem.data.split import Part, StandardiseSettings
from lasem.data.task import Count, TaskStream, child_generator
from lasem.errors import ConfigError, DataError
from lasem.settings import Range

NUM_CLASSES: Final = 10
"""Of CIFAR-10 and MNIST."""

_POOLS, _IMAGES = range(2)  # what a child generator is for
_FIRST_HALF: Final = (
    (4, 30, 55, 72, 95),  # aquatic mammals
    (1, 32, 67, 73, 91),  # fish
    (54, 62, 70, 82, 92),  # flowers
    (9, 10, 16, 28, 61),  # food containers
    (0, 51, 53, 57, 83),  # fruit and vegetables
    (5, 20, 25, 84, 94),  # household furniture
    (6, 7, 14, 18, 24),  # insects
    (3, 42, 43, 88, 97),  # large carnivores
    (12, 17, 37, 68, 76),  # large man-made outdoor things
    (8, 13, 48, 58, 90),  # vehicles 1
)
_SECOND_HALF: Final = (
    (22, 39, 40, 86, 87),  # household electrical devices
    (23, 33, 49, 60, 71),  # large natural outdoor scenes
    (15, 19, 21, 31, 38),  # large omnivores and herbivores
    (34, 63, 64, 66, 75),  # medium mammals
    (26, 45, 77, 79, 99),  # non-insect invertebrates
    (2, 11, 35, 46, 98),  # people
    (27, 29, 44, 78, 93),  # reptiles
    (36, 50, 65, 74, 80),  # small mammals
    (47, 52, 56, 59, 96),  # trees
    (41, 69, 81, 85, 89),  # vehicles 2
)


def paper_classes(num_tasks: int) -> list[list[int]]:
    """Return the classes of each task, as LASEM's authors chose them.

    Ten tasks are disjoint: each has the k-th class of ten superclasses. Of twenty, every second one is one of these
    ten, and one between two has the classes at even places of the one before and at odd places of the one after it.
    Forty begin with these twenty; the rest mix both halves of the superclasses, five classes changing from one task to
    the next.
    """
    first = [[classes[k] for classes in _FIRST_HALF] for k in range(5)]
    second = [[classes[k] for classes in _SECOND_HALF] for k in range(5)]
    if num_tasks == 10:
        return first + second
    whole = [task for k in range(4) for task in (first[k], second[k])] + [second[4], first[4]]
    tasks = []
    for task, following in zip(whole, [*whole[1:], whole[0]], strict=True):
        tasks += [task, [(task, following)[place % 2][place] for place in range(10)]]
    if num_tasks == 40:
        mixed = [
            [(first[k], second[k])[turn][place] for place in range(start, 10, 2) for turn in (0, 1)]
            for k in range(5)
            for start in (0, 1)
        ]
        for task, following in zip(mixed, [*mixed[1:], mixed[0]], strict=True):
            tasks += [task, following[:5] + task[5:]]
    return tasks


@final
@dataclass(frozen=True, kw_only=True)
class Cifar100Reader(BenchmarkReader, CutSettings):
    """60,000 colour images of 32x32 pixels in 100 classes ([Krizhevsky2009]_).

    Files: parquet as on the Hugging Face Hub (columns ``img`` and ``fine_label``).
    """

    name: ClassVar[str] = "cifar100"
    layout: ClassVar[Layout] = Layout.of_hub(
        "CIFAR-100",
        "uoft-cs/cifar100",
        "aadb3af77e9048adbea6b47c21a81e47dd092ae5",
        "cifar100",
        train="694865d6b990e234804f01268586c41e88bcbbb75e20858432c05ad4081aca23",
        test="98776c529bb146a9c791229df74a5cf076be9b43d82dbbd334b6a7788d73dc68",
    )

    num_tasks: Count | None = 10
    """10, 20 or 40 for the paper's classes; any number that they are enough for if they are drawn."""
    classes: Literal["paper", "drawn"] = "paper"
    """``paper``: the authors' classes in each task, which of 20 and 40 tasks some share; the seed draws images only.
    ``drawn``: disjoint ones, by the seed."""
    classes_per_task: Annotated[int, Range(least=2)] = 10
    """Classes in each task; 10 for the paper's."""
    train_per_class: Count | None = 17
    """Training images of each class; 17 and 3 are the paper's 4 % of the data."""
    valid_per_class: Count | None = 3
    """Validation images of each class, taken from the training split."""
    test_per_class: Count | None = None
    """Test images of each class; none: all 100."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes == "paper" and (self.num_tasks not in (10, 20, 40) or self.classes_per_task != 10):
            raise ConfigError(
                f"The paper has 10, 20 or 40 tasks of 10 classes of CIFAR-100; got Cifar100Reader.num_tasks "
                f"{self.num_tasks} and classes_per_task {self.classes_per_task}. Set Cifar100Reader.classes to drawn "
                f"for others."
            )

    def read(self, folder: Path, seed: int) -> TaskStream:
        data = ParquetReader(path=str(folder), image_column="img", label_column="fine_label").labelled()
        if self.classes == "drawn":
            return data.disjoint(self, seed, self.name)
        assert self.num_tasks is not None
        cuts = cut_classes(self, data, seed, paper_classes(self.num_tasks))
        return data.stream(cuts, name=self.name, standardise=self.standardise)


@dataclass(frozen=True, kw_only=True)
class TwoWayReader(StandardiseSettings, BenchmarkReader):
    """Cuts ten classes into tasks with two answers."""

    image_column: ClassVar[str]
    channels: ClassVar[Channels]
    valid_share: ClassVar[float]
    """Share of each class's training images that only validation uses."""

    num_tasks: Literal[5, 10] = 5
    """5: two classes each; 10: one class against all others."""
    num_train: Annotated[int, Range(least=2)] = 340
    """Training images of each task."""
    num_valid: Annotated[int, Range(least=2)] = 60
    """Validation images of each task, taken from the training split."""
    num_test: Annotated[int, Range(least=2)] = 2000
    """Test images of each task, at most."""

    def read(self, folder: Path, seed: int) -> TaskStream:
        data = ParquetReader(path=str(folder), image_column=self.image_column, channels=self.channels).labelled()
        return data.stream(self.cut(data, seed), name=self.name, standardise=self.standardise)

    def cut(self, data: Labelled, seed: int) -> tuple[TaskCut, ...]:
        """Choose the images of every task; DataError if a class has too few, or there are other than ten classes.

        By the seed, each class's training images are first divided into those that train and those that validate, for
        all tasks. Images of a task are then drawn for each task and split.
        """
        names = tuple(data.class_names)
        if len(names) != NUM_CLASSES:
            raise DataError(f"Expected {NUM_CLASSES} classes; got {len(names)}.")
        pools = [self._pools(data, number, seed) for number in range(NUM_CLASSES)]
        tasks = []
        for index in range(self.num_tasks):
            if self.num_tasks == NUM_CLASSES:
                others = [number for number in range(NUM_CLASSES) if number != index]
                classes, answers = (names[index], f"not-{names[index]}"), ([index], others)
            else:
                classes, answers = (names[2 * index], names[2 * index + 1]), ([2 * index], [2 * index + 1])
            positions, labels = [], []
            for part, count in zip(Part, (self.num_train, self.num_valid, self.num_test), strict=True):
                of_answers = [torch.cat([pools[number][part] for number in numbers]) for numbers in answers]
                generator = child_generator(seed, _IMAGES, index, part)
                drawn = _drawn(of_answers, count, generator, part, f"{classes[0]} and {classes[1]}")
                order = torch.cat(drawn).argsort()
                positions.append(torch.cat(drawn)[order])
                labels.append(torch.arange(2).repeat_interleave(torch.tensor([len(some) for some in drawn]))[order])
            tasks.append(TaskCut(classes, tuple(positions), tuple(labels)))
        return tuple(tasks)

    def _pools(self, data: Labelled, number: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return a class's positions for training, validation and testing."""
        of_class = data.labels == number
        train, test = (torch.nonzero(of_class & (data.parts == part)).flatten() for part in (Part.TRAIN, Part.TEST))
        shuffled = train[torch.randperm(len(train), generator=child_generator(seed, _POOLS, number))]
        num_valid = int(len(train) * self.valid_share)
        return shuffled[num_valid:], shuffled[:num_valid], test


@final
@dataclass(frozen=True, kw_only=True)
class Cifar10Reader(TwoWayReader):
    """60,000 colour images of 32x32 pixels in ten classes ([Krizhevsky2009]_).

    Files: parquet as on the Hugging Face Hub (columns ``img`` and ``label``). The default is the authors' 4 % of the
    data: 340 training, 60 validation and 2,000 test images a task.
    """

    name: ClassVar[str] = "cifar10"
    layout: ClassVar[Layout] = Layout.of_hub(
        "CIFAR-10",
        "uoft-cs/cifar10",
        "0b2714987fa478483af9968de7c934580d0bb9a2",
        "plain_text",
        train="8428b53a88a11ac374111006708df51469e315a22ac6d66470afd9c78d2ae883",
        test="841389e6f2d64f28bf17310e430aebac20ec3ba611a3c5e231dc93c645ce84de",
    )
    image_column: ClassVar[str] = "img"
    channels: ClassVar[Channels] = 3
    valid_share: ClassVar[float] = 1 / 6


@final
@dataclass(frozen=True, kw_only=True)
class MnistReader(TwoWayReader):
    """70,000 grey images of 28x28 pixels, the ten digits ([LeCun1998]_).

    Files: parquet as on the Hugging Face Hub (columns ``image`` and ``label``). The default is the authors' 3 % of the
    data: 300 training, 60 validation and 1,800 test images a task.
    """

    name: ClassVar[str] = "mnist"
    layout: ClassVar[Layout] = Layout.of_hub(
        "MNIST",
        "ylecun/mnist",
        "77f3279092a1c1579b2250db8eafed0ad422088c",
        "mnist",
        train="f2c01285a9f89399335b00ee4e8d499dc4e46db5e39c74903ce5618d895eb3bf",
        test="d49fcf556ce25b002b302e318ce4a11098bbfe5d4499c3f35d7c72297c52374b",
    )
    image_column: ClassVar[str] = "image"
    channels: ClassVar[Channels] = 1
    valid_share: ClassVar[float] = 1 / 12

    num_train: Annotated[int, Range(least=2)] = 300
    """Training images of each task."""
    num_test: Annotated[int, Range(least=2)] = 1800
    """Test images of each task, at most."""


def _drawn(
    answers: Sequence[Tensor], count: int, generator: torch.Generator, part: Part, what: str
) -> tuple[Tensor, Tensor]:
    """Draw ``count`` images, half of each answer; where one has too few, the other has more."""
    first, second = (pool[torch.randperm(len(pool), generator=generator)] for pool in answers)
    if part == Part.TEST:
        count = min(count, len(first) + len(second))
    if len(first) + len(second) < count:
        raise DataError(
            f"The classes {what} have too few images: {len(first) + len(second)} that may be used for the "
            f"{part.word} split, of which a task is to have {count}. Ask for fewer."
        )
    num_first = max(min(count // 2, len(first)), count - len(second))
    return first[:num_first], second[: count - num_first]
