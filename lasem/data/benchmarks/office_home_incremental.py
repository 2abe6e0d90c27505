"""Office-Home incremental: six tasks over product photographs, each with one class more than the one before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, final

from lasem.data.benchmarks.office_home_files import (
    PRODUCT,
    OfficeHomeSettings,
    check_class_folders,
    layout,
    write_domain,
)
from lasem.data.benchmarks.source import choose, open_benchmark
from lasem.data.stream import AbstractReader, TaskStream
from lasem.data.task import Task

ORDER: Final = ("Couch", "Table", "Paper_Clip", "Clipboards", "Bucket", "Notebook", "Bed", "Trash_Can")
"""The classes in the order in which they come."""
FIRST: Final = 3
"""Classes of the first task."""


@final
@dataclass(frozen=True, kw_only=True)
class OfficeHomeIncrementalReader(OfficeHomeSettings, AbstractReader):
    """Six tasks: Couch, Table and Paper Clip; then Clipboards, Bucket, Notebook, Bed and Trash Can, one at a time.

    Files: ``Product/CLASS/*.jpg``. A class's images are parted once for all tasks, by the seed: no task trains on what
    another one tests on (in the authors' code each task parts them anew).
    """

    name: ClassVar[str] = "office-home-incremental"

    def open(self, seed: int) -> TaskStream:
        """See AbstractReader. Images are decoded when their task is reached."""

        def read(folder: Path) -> TaskStream:
            domain = choose(folder, PRODUCT)
            check_class_folders(domain, ORDER)

            def task_at(index: int) -> Task:
                return self.task(f"{self.name}-{index}", domain, ORDER[: FIRST + index], seed, 0)

            return TaskStream.made_by(task_at, name=self.name, num_tasks=len(ORDER) - FIRST + 1)

        return open_benchmark(self, self.name, layout(PRODUCT), read=read, write_stand_in=write_stand_in)


def write_stand_in(folder: Path) -> None:
    """Write ten images of each of the eight classes."""
    write_domain(folder / PRODUCT, ORDER, 0)
