"""What every learner can do, whatever the method behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lasem.data import Split, Task, Vocabulary, standardise
from lasem.data.images import in_chunks, moved
from lasem.errors import ShapeError, TaskError, nearest
from lasem.records import TaskRecord
from lasem.training import EVALUATION_BATCH, OnEpoch, TrainingState, as_float32

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
        logits = self.logits(name, images)
        if probabilities:
            return torch.softmax(logits, dim=1)
        classes = self.classes(name)
        return [classes[index] for index in logits.argmax(dim=1).tolist()]

    @abstractmethod
    def logits(self, name: str, images: Images) -> Tensor:
        """Logits of shape (N, num_classes) on the CPU; arguments and errors as in ``predict``."""

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


def as_pixels(images: Images, image_shape: tuple[int, int, int], vocabulary: Vocabulary | None = None) -> Tensor:
    """Images as a tensor, if they are what ``AbstractLearner.predict`` takes.

    Args:
        images: see ``Images``.
        image_shape: channels, height and width that the network takes.
        vocabulary: of a network that reads texts.

    Raises:
        ShapeError: if the images have another shape, or are integers but for uint8.
        DataError: if they are no texts that the network can read.
    """
    how = "" if vocabulary is None else f" Make texts with lasem.data.as_tokens(texts, length={image_shape[2]})."
    pixels = torch.from_numpy(np.ascontiguousarray(images)) if isinstance(images, np.ndarray) else images
    if pixels.ndim != 4 or tuple(pixels.shape[1:]) != image_shape:
        raise ShapeError(
            f"Expected images of shape (N, {', '.join(map(str, image_shape))}); got {tuple(pixels.shape)}.{how}"
        )
    if pixels.dtype != torch.uint8 and not pixels.is_floating_point():
        raise ShapeError(f"Expected images as uint8 pixels or floats; got {pixels.dtype}.{how}")
    if vocabulary is not None:
        vocabulary.check(pixels)
    return pixels


@torch.no_grad()
def answered(
    pixels: Tensor,
    answer: Callable[[Tensor], Tensor],
    *,
    mean: Tensor,
    std: Tensor,
    num_classes: int,
    device: torch.device,
) -> Tensor:
    """Logits (N, num_classes) on the CPU for N images, a part of them at a time.

    Args:
        pixels: see ``as_pixels``.
        answer: from standardised images on the device to logits.
        mean: per channel, see ``standardise``.
        std: per channel.
        num_classes: of the task.
        device: where to compute.
    """
    parts = (part for part in torch.split(pixels, EVALUATION_BATCH) if len(part))
    out = [as_float32(answer(standardise(moved(part, device), mean, std))) for part in parts]
    return torch.cat(out).cpu() if out else torch.empty(0, num_classes)


def check_texts(vocabulary: Vocabulary | None, splits: Mapping[str, Split]) -> None:
    """Raise DataError if a network reads texts and a split holds anything else, or ids that it does not know.

    Args:
        vocabulary: the network's; None: it reads no texts, and nothing is looked at.
        splits: by what messages call their texts.
    """
    if vocabulary is not None:
        for what, split in splits.items():
            for images in in_chunks(split.images):
                vocabulary.check(standardise(images, split.mean, split.std), what)


def check_new(task: Task, learned: Collection[str], image_shape: tuple[int, int, int]) -> None:
    """Raise TaskError if a task of that name was learned, ShapeError if its images do not fit the network."""
    if task.name in learned:
        raise TaskError(f"Task '{task.name}' has been learned already. Give the new task another name.")
    if task.image_shape != image_shape:
        raise ShapeError(
            f"Task '{task.name}' has images of shape {task.image_shape}; this network takes {image_shape}."
        )


def check_learned(name: str, learned: Collection[str]) -> None:
    """Raise TaskError unless a task of that name was learned."""
    if name not in learned:
        raise TaskError(
            f"Task '{name}' has not been learned (learned: {', '.join(learned) or 'none'}).{nearest(name, learned)} "
            f"Learn it first."
        )
