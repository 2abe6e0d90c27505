"""What every learner can do, whatever the method behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lasem.data import Split, Task
from lasem.records import EpochRecord, TaskRecord, TimingRecord


class TrainingState(NamedTuple):
    """Everything that the epochs still to come depend on: tensors by name, and plain values for JSON."""

    tensors: Mapping[str, Tensor]
    plain: Mapping[str, Any]


OnEpoch = Callable[[EpochRecord, TimingRecord, Callable[[], TrainingState]], None]
"""Called after each epoch with its records and a function that gives the state to resume from."""

Images = Tensor | NDArray[np.generic]
"""Images of shape (N, channels, height, width): uint8 pixels, or floats as the task's own images were."""


class AbstractLearner(ABC):
    """Learns tasks one after another and answers for every task learned so far."""

    @property
    @abstractmethod
    def task_names(self) -> tuple[str, ...]:
        """The tasks learned so far, in order."""

    @abstractmethod
    def learn(
        self, task: Task, *, on_epoch: OnEpoch | None = None, resume_from: TrainingState | None = None
    ) -> TaskRecord:
        """Learn one more task. If it fails, the learner is what it was before.

        Args:
            task: images, labels and names.
            on_epoch: is told of every epoch.
            resume_from: state of an interrupted ``learn`` of the same task by a learner in the same condition.

        Raises:
            TaskError: if a task of that name was learned already.
            ShapeError: if the images have another shape than the network takes.
            TrainingError: if training cannot go on.
            StorageError: if ``resume_from`` belongs to something else.
        """

    @overload
    def predict(self, name: str, images: Images, *, probabilities: Literal[False] = False) -> list[str]: ...
    @overload
    def predict(self, name: str, images: Images, *, probabilities: Literal[True]) -> Tensor: ...
    @abstractmethod
    def predict(self, name: str, images: Images, *, probabilities: bool = False) -> list[str] | Tensor:
        """Answer for one task.

        Args:
            name: of a learned task.
            images: see ``Images``; they are standardised as the task's training images were.
            probabilities: give a float32 tensor of shape (N, num_classes) instead of N class names.

        Raises:
            TaskError: if the task was not learned.
            ShapeError: if the images have another shape than the network takes.
        """

    @abstractmethod
    def classes(self, name: str) -> tuple[str, ...]:
        """Class names of a learned task, in the order of ``predict``'s probabilities."""

    @abstractmethod
    def accuracy(self, name: str, split: Split) -> float:
        """Share of a split's images that the task's network labels rightly, in [0, 1]."""

    @abstractmethod
    def num_parameters(self, name: str | None = None) -> int:
        """Numbers that the whole model holds, or those that one task alone owns."""

    @abstractmethod
    def save(self, directory: str | Path) -> None:
        """Write the model as safetensors and JSON; a model saved there before may only have grown since.

        Raises:
            StorageError: if the folder holds something else, or cannot be written.
        """
