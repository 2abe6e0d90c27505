"""The tasks of a learner; those of a saved model are read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

from lasem.learner.learned import LearnedTask
from lasem.learner.shared import Versions
from lasem.space import Configuration

Entry = Mapping[str, Any]
"""What a model's index says of a task: its name, its file and the file's checksum."""


@final
@dataclass(frozen=True)
class TaskOutline:
    """What is known of a task without its weights."""

    name: str
    configuration: Configuration
    num_epochs: int
    """Epochs that the task was trained for."""
    num_parameters: int
    """Numbers that the task alone owns."""
    versions: Versions
    """For each layer the version of the shared knowledge that the task uses."""

    def to_plain(self) -> dict[str, Any]:
        """As an index has it; of versions it says nothing where there is but one of each layer."""
        return {
            "name": self.name,
            "configuration": str(self.configuration),
            **({"versions": list(self.versions)} if any(self.versions) else {}),
            "num_epochs": self.num_epochs,
            "num_parameters": self.num_parameters,
        }

    @classmethod
    def of(cls, task: LearnedTask) -> TaskOutline:
        """The outline of a task that is in memory."""
        return cls(task.name, task.configuration, task.num_epochs, task.num_parameters, task.versions)


@final
class LearnedTasks(Mapping[str, LearnedTask]):
    """Tasks by name, in the order in which they were learned. Changes by making another one."""

    def __init__(self, places: Mapping[str, _Place] | None = None, forgotten: frozenset[str] = frozenset()) -> None:
        """Start with some places; none if not given."""
        self._places = dict(places or {})
        self.forgotten = forgotten
        """Checksums of the tasks that this process forgot: a folder that still has them is the same model's."""

    def __getitem__(self, name: str) -> LearnedTask:
        return self._places[name].task()

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    @cached_property
    def outlines(self) -> tuple[TaskOutline, ...]:
        """Every task's, in order; nothing is read."""
        return tuple(place.outline for place in self._places.values())

    def outline(self, name: str) -> TaskOutline:
        """One task's; nothing is read."""
        return self._places[name].outline

    def entry(self, name: str) -> Entry | None:
        """What the index says of a task; None if it was never saved."""
        return self._places[name].entry

    def with_task(self, task: LearnedTask) -> LearnedTasks:
        """These and one more."""
        return LearnedTasks({**self._places, task.name: _Place(TaskOutline.of(task), task)}, self.forgotten)

    @classmethod
    def stored(cls, tasks: Iterable[tuple[TaskOutline, Entry, Callable[[], LearnedTask]]]) -> LearnedTasks:
        """Tasks that are read from files, each by a function of its own."""
        return cls({outline.name: _Place(outline, None, entry, read) for outline, entry, read in tasks})

    def without(self, name: str) -> LearnedTasks:
        """All but one."""
        entry = self._places[name].entry
        gone = {entry["checksum"]} if entry is not None else set()
        return LearnedTasks({k: v for k, v in self._places.items() if k != name}, self.forgotten | gone)

    def saved_as(self, entries: Mapping[str, Entry]) -> None:
        """Keep what the index says of the tasks, so that they need not be written out again to be recognised."""
        for name, entry in entries.items():
            self._places[name].entry = entry


class _Place:
    """One task: in memory, or to be read."""

    def __init__(
        self,
        outline: TaskOutline,
        task: LearnedTask | None,
        entry: Entry | None = None,
        read: Callable[[], LearnedTask] | None = None,
    ) -> None:
        self.outline, self.entry = outline, entry
        self._task, self._read = task, read

    def task(self) -> LearnedTask:
        if self._task is None:
            assert self._read is not None
            self._task = self._read()
        return self._task
