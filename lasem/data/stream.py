"""Streams of tasks, readers that open them, and the random generators that readers draw from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Annotated, ClassVar, final

import numpy as np
import torch

from lasem.data.task import Task, check_unique
from lasem.errors import ConfigError, DataError
from lasem.settings import Range

Count = Annotated[int, Range(least=1)]


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
    def of(cls, tasks: Sequence[Task], *, name: str = "tasks") -> TaskStream:
        """Make a stream of tasks that are there already.

        Raises:
            DataError: if two tasks have the same name.
        """
        kept = tuple(tasks)
        check_unique([task.name for task in kept], "task of a stream")
        return cls(name, lambda: kept, num_tasks=len(kept), task_at=kept.__getitem__)

    @classmethod
    def made_by(cls, task_at: Callable[[int], Task], *, name: str, num_tasks: int) -> TaskStream:
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
        """Make one task; an index below 0 counts from the end, where that is known.

        Raises:
            DataError: if there is no such task.
        """
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
    """Return the generator of ``path`` (say: purpose, task index) below ``seed``.

    What it draws does not depend on how many numbers other paths drew before.

    Raises:
        ConfigError: if ``seed`` is not an integer of at least 0.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ConfigError(f"A seed must be an integer of at least 0; got {seed!r}.")
    state = np.random.SeedSequence(entropy=seed, spawn_key=path).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))
