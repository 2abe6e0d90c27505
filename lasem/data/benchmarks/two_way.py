"""MNIST and CIFAR-10 as tasks with two answers, as in the code of LASEM's authors.

Five tasks tell apart two classes each: 0 from 1, 2 from 3, and so on. Ten tasks tell one class from all others. Half of
a task's images, as far as there are so many, are of the first answer.

.. [Krizhevsky2009] A. Krizhevsky. Learning Multiple Layers of Features from Tiny Images. Technical report, 2009.
.. [LeCun1998] Y. LeCun, L. Bottou, Y. Bengio, P. Haffner. Gradient-Based Learning Applied to Document Recognition.
   Proceedings of the IEEE 86(11), 1998.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, final

import torch
from torch import Tensor

from lasem.data.benchmarks.source import BenchmarkReader, Layout
from lasem.data.decode import Channels
from lasem.data.labelled import Labelled, TaskCut
from lasem.data.parquet import ParquetReader
from lasem.data.split import Part, StandardiseSettings
from lasem.data.task import TaskStream, child_generator
from lasem.errors import DataError
from lasem.settings import Range

NUM_CLASSES = 10

_POOLS, _IMAGES = range(2)  # what a child generator is for


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
        """Choose the images of every task.

        By the seed, each class's training images are first divided into those that train and those that validate, for
        all tasks. Images of a task are then drawn for each task and split.

        Raises:
            DataError: if there are too few images of a class, or there are other than ten classes.
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
