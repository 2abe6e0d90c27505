"""Labelled images into tasks with disjoint classes, by a seed.

Which classes the k-th task gets, and which images of a class train, validate and test, depends on the seed alone: not
on the number of tasks that were asked for, and for a class not on the task that it is in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from lasem.data.checks import check_count, check_labels, check_unique
from lasem.data.seeds import child_generator
from lasem.data.split import STANDARDISE, Standardise
from lasem.errors import ConfigError, DataError, check_choice

TRAIN: Final = 0
VALID: Final = 1
TEST: Final = 2
PARTS: Final = ("train", "valid", "test")

_CLASSES, _IMAGES = 0, 1  # what a child generator is for


@dataclass(frozen=True, kw_only=True)
class CutSettings:
    """How a data set is cut into tasks. Readers inherit these settings."""

    num_tasks: int | None = None
    """Number of tasks; None: as many as there are classes for. Classes left over are not used."""
    classes_per_task: int = 10
    """Classes in each task, drawn without replacement over all tasks; at least 2."""
    train_per_class: int | None = None
    """Training images of each class; None: all that are left."""
    valid_per_class: int | None = None
    """Validation images of each class. None: all of the validation split. If the data have none, they are taken from
    the training images: 15 % of those for training and validation together (3 beside 17), at least 1."""
    test_per_class: int | None = None
    """Test images of each class. None: all of the test split. If the data have none, they are taken from the training
    images: 20 %, at least 1."""
    standardise: Standardise = "train"
    """Whose mean and deviation standardise a task's images: ``train``: all by the training images'; ``split``: each
    split by its own, as in the paper; ``none``: only divided by 255."""

    def __post_init__(self) -> None:
        kind = type(self).__name__
        check_count(f"{kind}.classes_per_task", self.classes_per_task, least=2)
        for setting in ("num_tasks", "train_per_class", "valid_per_class", "test_per_class"):
            value = getattr(self, setting)
            if value is not None:
                check_count(f"{kind}.{setting}", value, least=1)
        check_choice(f"{kind}.standardise", self.standardise, STANDARDISE)


@dataclass(frozen=True, eq=False)
class TaskCut:
    """Which images one task gets. Tuples are in the order train, valid, test."""

    classes: tuple[str, ...]
    positions: tuple[Tensor, Tensor, Tensor]
    """Positions in the data set, ascending."""
    labels: tuple[Tensor, Tensor, Tensor]
    """The label of each position, 0 to the number of the task's classes - 1."""


def cut(
    settings: CutSettings, labels: Tensor, parts: Tensor, class_names: Sequence[str], seed: int
) -> tuple[TaskCut, ...]:
    """Choose the classes and images of every task.

    Args:
        settings: how many of what.
        labels: int64 (N,), the class of each image, a position in ``class_names``.
        parts: int64 (N,), the split that the data set has each image in: TRAIN, VALID or TEST.
        class_names: names of the classes. A class without any image is passed over.
        seed: at least 0.

    Raises:
        DataError: if a class that is drawn has too few images, or there are labels without a class.
        ConfigError: if there are too few classes for the tasks.
    """
    _check_classes(labels, class_names)
    present = torch.unique(labels)
    num_tasks = _num_tasks(settings, len(present))
    drawn = present[torch.randperm(len(present), generator=child_generator(seed, _CLASSES))]
    chosen = torch.split(drawn[: num_tasks * settings.classes_per_task], settings.classes_per_task)
    return cut_classes(settings, labels, parts, class_names, seed, [task.tolist() for task in chosen])


def cut_classes(
    settings: CutSettings,
    labels: Tensor,
    parts: Tensor,
    class_names: Sequence[str],
    seed: int,
    chosen: Sequence[Sequence[int]],
) -> tuple[TaskCut, ...]:
    """Choose the images of tasks whose classes are known, which may be in several tasks; see ``cut``.

    A class has the same images in every task that it is in.
    """
    _check_classes(labels, class_names)
    groups = labels * len(PARTS) + parts
    sizes = groups.bincount(minlength=len(class_names) * len(PARTS)).tolist()
    by_group = torch.split(groups.argsort(stable=True), sizes)
    has_valid, has_test = bool((parts == VALID).any()), bool((parts == TEST).any())

    tasks = []
    for classes in chosen:
        numbers = sorted(classes)
        images: list[tuple[Tensor, Tensor, Tensor]] = []
        for number in numbers:
            shuffled = []
            for part in (TRAIN, VALID, TEST):
                group = by_group[number * len(PARTS) + part]
                generator = child_generator(seed, _IMAGES, number, part)
                shuffled.append(group[torch.randperm(len(group), generator=generator)])
            images.append(_cut_class(settings, class_names[number], shuffled, has_valid, has_test))
        positions = tuple(
            torch.cat([of_class[part] for of_class in images]).sort().values for part in range(len(PARTS))
        )
        local = [torch.searchsorted(torch.tensor(numbers), labels[of_part]) for of_part in positions]
        tasks.append(
            TaskCut(
                classes=tuple(class_names[number] for number in numbers),
                positions=(positions[TRAIN], positions[VALID], positions[TEST]),
                labels=(local[TRAIN], local[VALID], local[TEST]),
            )
        )
    return tuple(tasks)


def _check_classes(labels: Tensor, class_names: Sequence[str]) -> None:
    """Raise DataError for a label without a class, or a class name that comes twice."""
    check_unique(class_names, "class")
    check_labels(labels, len(class_names))


def _num_tasks(settings: CutSettings, num_classes: int) -> int:
    most = num_classes // settings.classes_per_task
    if most == 0:
        raise ConfigError(
            f"classes_per_task must be at most the number of classes that have images, {num_classes}; got "
            f"{settings.classes_per_task}."
        )
    if settings.num_tasks is not None and settings.num_tasks > most:
        raise ConfigError(
            f"num_tasks must be at most {most}, for tasks of {settings.classes_per_task} disjoint classes out of "
            f"{num_classes}; got {settings.num_tasks}. Ask for fewer tasks, or fewer classes_per_task."
        )
    return most if settings.num_tasks is None else settings.num_tasks


def _cut_class(
    settings: CutSettings, name: str, images: Sequence[Tensor], has_valid: bool, has_test: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Cut the shuffled images of one class. Test comes first: what is tested on is the same whatever is trained on."""
    train, valid, test = images
    num_test, num_valid, num_train = settings.test_per_class, settings.valid_per_class, settings.train_per_class
    if has_test:
        num_test = num_test or max(1, len(test))
        _check_enough(name, "test", len(test), {"test": num_test})
    else:
        num_test = num_test or max(1, round(0.2 * len(train)))
        test, train = train[:num_test], train[num_test:]
    if has_valid:
        num_valid = num_valid or max(1, len(valid))
        _check_enough(name, "valid", len(valid), {"validate": num_valid})
    else:
        num_valid = num_valid or max(1, round(0.15 * len(train) if num_train is None else num_train * 15 / 85))
        valid, train = train[:num_valid], train[num_valid:]
    needed = {"train": num_train or 1} | ({} if has_valid else {"validate": num_valid})
    _check_enough(name, "train", len(images[TRAIN]), needed | ({} if has_test else {"test": num_test}))
    return train[:num_train], valid[:num_valid], test[:num_test]


def _check_enough(name: str, part: str, available: int, needed: dict[str, int]) -> None:
    if available < sum(needed.values()):
        wanted = ", ".join(f"{count} to {use}" for use, count in needed.items())
        raise DataError(
            f"Class '{name}' has too few images: its {part} split must hold at least {sum(needed.values())} "
            f"({wanted}); it holds {available}. Add images, or ask for fewer of each class."
        )
