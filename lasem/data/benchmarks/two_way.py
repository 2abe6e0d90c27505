"""Tasks with two answers out of ten classes, as the authors of LASEM cut MNIST and CIFAR-10.

Five tasks tell apart two classes each: 0 from 1, 2 from 3, and so on. Ten tasks tell one class from all others. Half of
a task's images, as far as there are so many, are of the first answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lasem.data.checks import check_count
from lasem.data.cut import PARTS, TEST, TRAIN, VALID, TaskCut
from lasem.data.labelled import Labelled
from lasem.data.seeds import child_generator
from lasem.data.split import STANDARDISE, Standardise
from lasem.errors import ConfigError, DataError, check_choice

NUM_CLASSES = 10

_POOLS, _IMAGES = range(2)  # what a child generator is for


@dataclass(frozen=True, kw_only=True)
class TwoWaySettings:
    """How ten classes are cut into tasks with two answers. Readers inherit these settings."""

    valid_share: ClassVar[float]
    """Share of each class's training images that only validation uses."""

    num_tasks: int = 5
    """5: two classes each; 10: one class against all others."""
    num_train: int = 340
    """Training images of each task."""
    num_valid: int = 60
    """Validation images of each task, taken from the training split."""
    num_test: int = 2000
    """Test images of each task, at most."""
    standardise: Standardise = "train"
    """Whose mean and deviation standardise a task's images: ``train``: all by the training images'; ``split``: each
    split by its own; ``none``: only divided by 255."""

    def __post_init__(self) -> None:
        kind = type(self).__name__
        if self.num_tasks not in (5, 10):
            raise ConfigError(
                f"{kind}.num_tasks must be 5 (two classes each) or 10 (one class against all others); got "
                f"{self.num_tasks}."
            )
        for setting in ("num_train", "num_valid", "num_test"):
            check_count(f"{kind}.{setting}", getattr(self, setting), least=2)
        check_choice(f"{kind}.standardise", self.standardise, STANDARDISE)


def cut_two_way(settings: TwoWaySettings, data: Labelled, seed: int) -> tuple[TaskCut, ...]:
    """Choose the images of every task.

    By the seed, each class's training images are first parted into those that train and those that validate, for all
    tasks. Images of a task are then drawn for each task and split.

    Raises:
        DataError: if there are too few images of a class, or there are other than ten classes.
    """
    if len(data.class_names) != NUM_CLASSES:
        raise DataError(f"Expected {NUM_CLASSES} classes; got {len(data.class_names)}.")
    pools = [_pools(settings, data, number, seed) for number in range(NUM_CLASSES)]
    names = tuple(data.class_names)
    tasks = []
    for index in range(settings.num_tasks):
        if settings.num_tasks == NUM_CLASSES:
            others = [number for number in range(NUM_CLASSES) if number != index]
            classes, first, second = (names[index], f"not-{names[index]}"), [index], others
        else:
            classes = (names[2 * index], names[2 * index + 1])
            first, second = [2 * index], [2 * index + 1]
        positions, labels = [], []
        for part, count in ((TRAIN, settings.num_train), (VALID, settings.num_valid), (TEST, settings.num_test)):
            answers = [torch.cat([pools[number][part] for number in of_answer]) for of_answer in (first, second)]
            generator = child_generator(seed, _IMAGES, index, part)
            drawn = _drawn(answers, count, generator, part, f"{classes[0]} and {classes[1]}")
            order = torch.cat(drawn).argsort()
            positions.append(torch.cat(drawn)[order])
            labels.append(torch.arange(2).repeat_interleave(torch.tensor([len(some) for some in drawn]))[order])
        tasks.append(TaskCut(classes, (positions[0], positions[1], positions[2]), (labels[0], labels[1], labels[2])))
    return tuple(tasks)


def _pools(settings: TwoWaySettings, data: Labelled, number: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A class's positions for training, validation and testing."""
    mine = data.labels == number
    train, test = (torch.nonzero(mine & (data.parts == part)).flatten() for part in (TRAIN, TEST))
    shuffled = train[torch.randperm(len(train), generator=child_generator(seed, _POOLS, number))]
    num_valid = int(len(train) * settings.valid_share)
    return shuffled[num_valid:], shuffled[:num_valid], test


def _drawn(
    answers: Sequence[Tensor], count: int, generator: torch.Generator, part: int, what: str
) -> tuple[Tensor, Tensor]:
    """``count`` images, half of each answer; where one has too few, the other gives more."""
    first, second = (pool[torch.randperm(len(pool), generator=generator)] for pool in answers)
    if part == TEST:
        count = min(count, len(first) + len(second))
    if len(first) + len(second) < count:
        raise DataError(
            f"The classes {what} have too few images: {len(first) + len(second)} that may be used for the "
            f"{PARTS[part]} split, of which a task is to have {count}. Ask for fewer."
        )
    num_first = max(min(count // 2, len(first)), count - len(second))
    return first[:num_first], second[: count - num_first]
