"""Office-Home as ten tasks of 13 classes over two domains, five in each: the stream of LASEM's tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, final

from lasem.data.benchmarks.office_home_files import (
    CLASSES,
    PRODUCT,
    REAL_WORLD,
    OfficeHomeSettings,
    check_class_folders,
    layout,
    write_domain,
)
from lasem.data.benchmarks.source import choose, open_benchmark
from lasem.data.checks import check_count
from lasem.data.stream import AbstractReader, TaskStream
from lasem.data.task import Task

TASK_CLASSES: Final = (
    (63, 54, 55, 59, 47, 8, 5, 56, 18, 50, 3, 57, 13),
    (62, 19, 21, 35, 64, 46, 27, 10, 39, 17, 22, 34, 30),
    (48, 15, 51, 6, 40, 31, 4, 36, 45, 41, 16, 14, 11),
    (9, 29, 1, 44, 33, 26, 25, 32, 53, 12, 43, 38, 60),
    (28, 2, 49, 37, 20, 23, 58, 24, 52, 61, 7, 0, 42),
)
"""The authors' classes of each task, as positions in ``CLASSES``; the same five lists in both domains."""


@final
@dataclass(frozen=True, kw_only=True)
class OfficeHomeReader(OfficeHomeSettings, AbstractReader):
    """Photographs of things in an office and at home, 65 classes [Venkateswara2017]: products, then the real world.

    Files: ``Product/CLASS/*.jpg`` and ``Real World/CLASS/*.jpg``, as the data set's archive has them. The seed parts
    each class's images; the classes of a task are the authors'.
    """

    name: ClassVar[str] = "office-home"

    num_tasks: int = 10
    """Number of tasks, the first of the paper's ten."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("OfficeHomeReader.num_tasks", self.num_tasks, least=1, most=2 * len(TASK_CLASSES))

    def open(self, seed: int) -> TaskStream:
        """See AbstractReader. Images are decoded when their task is reached."""

        def read(folder: Path) -> TaskStream:
            domains = [choose(folder, domain) for domain in (PRODUCT, REAL_WORLD)]
            for domain in domains:
                check_class_folders(domain, CLASSES)

            def task_at(index: int) -> Task:
                domain, number = divmod(index, len(TASK_CLASSES))
                classes = tuple(CLASSES[position] for position in TASK_CLASSES[number])
                return self.task(f"{self.name}-{index}", domains[domain], classes, seed, domain)

            return TaskStream.made_by(task_at, name=self.name, num_tasks=self.num_tasks)

        return open_benchmark(self, self.name, layout(PRODUCT, REAL_WORLD), read=read, write_stand_in=write_stand_in)


def write_stand_in(folder: Path) -> None:
    """Write ten images of each class and domain."""
    for part, domain in enumerate((PRODUCT, "Real World")):
        write_domain(folder / domain, CLASSES, part)
