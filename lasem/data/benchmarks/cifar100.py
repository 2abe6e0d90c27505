"""CIFAR-100 as 10, 20 or 40 tasks of ten classes, with 4 % of the data: the stream of LASEM's first table.

.. [Krizhevsky2009] A. Krizhevsky. Learning Multiple Layers of Features from Tiny Images. Technical report, 2009.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, final

from lasem.data.benchmarks.source import BenchmarkReader, Layout
from lasem.data.labelled import CutSettings, cut_classes
from lasem.data.parquet import ParquetReader
from lasem.data.task import Count, TaskStream
from lasem.errors import ConfigError
from lasem.settings import Range

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
