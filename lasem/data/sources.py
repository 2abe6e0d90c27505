"""One task from the files of whoever keeps a model: an image folder or parquet files for each split, or for all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from lasem.data.cut import PARTS, TEST, TRAIN, VALID
from lasem.data.decode import Channels
from lasem.data.folders import FolderReader
from lasem.data.images import AbstractImages
from lasem.data.labelled import Labelled
from lasem.data.names import existing_path
from lasem.data.parquet import ParquetReader
from lasem.data.seeds import child_generator
from lasem.data.split import make_splits
from lasem.data.task import Task
from lasem.errors import DataError, nearest

VALID_SHARE = 0.15
"""Of each class's training images, where no others are given to validate."""

LARGEST_FOUND = 256
"""Largest side that images' own size may make a network's; above, a person has to say what they want."""


@final
@dataclass(frozen=True, kw_only=True)
class Source:
    """Labelled images: a folder ``CLASS/*.png``, or a parquet file or folder in the Hugging Face layout.

    Either may hold one split, or several in the usual layout (``train/``, ``valid/`` and ``test/`` above the classes'
    folders, ``train-00000-of-00002.parquet``).
    """

    path: str
    image_column: str = "image"
    """Of a parquet file."""
    label_column: str = "label"
    """Of a parquet file."""

    def find_shape(self, image_size: int | None = None) -> tuple[int, Channels]:
        """The side and the channels of the first image of each class: 1 channel if all of them are grey.

        Args:
            image_size: the side, if that is known.

        Raises:
            DataError: if they are not equally large squares, or too large to be taken as they are.
        """
        found = self._labelled(image_size, 3)
        images = [found.take(torch.tensor([position])).take(torch.tensor([0]))[0] for position in _firsts(found)]
        sizes = {(image.shape[1], image.shape[2]) for image in images}
        (height, width), *others = sorted(sizes)
        if others or height != width or height > LARGEST_FOUND:
            told = " and ".join(f"{high}x{wide}" for high, wide in sorted(sizes)[:2])
            raise DataError(
                f"Expected square images of one size, at most {LARGEST_FOUND} pixels a side, in {self.path}; got "
                f"{told} (height x width). Say with image_size (--image-size) to which side all images are resized, "
                f"for instance 64."
            )
        grey = all(torch.equal(image[0], image[1]) and torch.equal(image[0], image[2]) for image in images)
        return height, 1 if grey else 3

    def parts(self, image_size: int, channels: Channels) -> dict[int, LabelledPart]:
        """The splits that are there, by TRAIN, VALID and TEST; what is not divided is TRAIN."""
        found = self._labelled(image_size, channels)
        present = torch.unique(found.parts).tolist()
        return {part: LabelledPart(self.path, found, (found.parts == part).nonzero()[:, 0]) for part in present}

    def part(self, wanted: int, image_size: int, channels: Channels) -> LabelledPart:
        """One split, or everything where nothing is divided.

        Raises:
            DataError: if the source is divided, but has no such split.
        """
        parts = self.parts(image_size, channels)
        if list(parts) == [TRAIN]:
            return parts[TRAIN]
        if wanted not in parts:
            raise DataError(
                f"Expected a split '{PARTS[wanted]}' in {self.path}; there are {', '.join(PARTS[p] for p in parts)}. "
                f"Name the folder or file of the split itself."
            )
        return parts[wanted]

    def _labelled(self, image_size: int | None, channels: Channels) -> Labelled:
        place = existing_path(self.path)
        if place.is_dir() and not _holds_parquet(place):
            return FolderReader(path=self.path, image_size=image_size, channels=channels).labelled()
        return ParquetReader(
            path=self.path,
            image_size=image_size,
            channels=channels,
            image_column=self.image_column,
            label_column=self.label_column,
        ).labelled()


@final
@dataclass(frozen=True, eq=False)
class LabelledPart:
    """Some of a source's images."""

    path: str
    found: Labelled
    positions: Tensor
    """Ascending."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes that have images here."""
        return tuple(self.found.class_names[number] for number in torch.unique(self._numbers()).tolist())

    def read(self, classes: tuple[str, ...]) -> tuple[AbstractImages, Tensor]:
        """Images, and the position of each one's class in ``classes``.

        Raises:
            DataError: if there is another class, or an image cannot be decoded.
        """
        unknown = next((name for name in self.classes if name not in classes), None)
        if unknown is not None:
            raise DataError(
                f"Expected only the task's classes ({', '.join(classes)}) in {self.path}; got '{unknown}'."
                f"{nearest(unknown, classes)}"
            )
        place = {name: number for number, name in enumerate(classes)}
        table = torch.tensor([place.get(name, -1) for name in self.found.class_names])
        return self.found.take(self.positions), table[self._numbers()]

    def divided(self, seed: int) -> tuple[LabelledPart, LabelledPart]:
        """The rest, and a share of each class to validate; which images these are depends on the seed alone.

        Raises:
            DataError: if a class has one image only.
        """
        taken = []
        for number in torch.unique(self._numbers()).tolist():
            group = self.positions[self._numbers() == number]
            if len(group) < 2:
                raise DataError(
                    f"Class '{self.found.class_names[number]}' has too few images in {self.path}: expected at least 2, "
                    f"one to train and one to validate; there is {len(group)}. Add images, or give others to validate "
                    f"(--valid)."
                )
            shuffled = group[torch.randperm(len(group), generator=child_generator(seed, number))]
            taken.append(shuffled[: max(1, round(VALID_SHARE * len(group)))])
        valid = torch.cat(taken).sort().values
        return replace(self, positions=self.positions[~torch.isin(self.positions, valid)]), replace(
            self, positions=valid
        )

    def _numbers(self) -> Tensor:
        return self.found.labels[self.positions]


def task_from(
    name: str,
    train: Source,
    valid: Source | None = None,
    test: Source | None = None,
    *,
    image_size: int,
    channels: Channels,
    seed: int,
) -> Task:
    """Make a task; every image is resized and converted.

    Args:
        name: see Task.
        train: images to train with, and the other splits if it has them.
        valid: images to validate with; None: those of ``train``'s own split, or a share of each class.
        test: images to test with; None: those of ``train``'s own split, or those that validate.
        image_size: height and width.
        channels: 1 for grey, 3 for colour.
        seed: of the share that validates.

    Raises:
        DataError: if anything is not there or not what it must be.
    """
    parts = train.parts(image_size, channels)
    if TRAIN not in parts:
        raise DataError(f"Expected images to train with in {train.path}; there are none.")
    training = parts[TRAIN]
    classes = training.classes
    if valid is not None:
        validating = valid.part(VALID, image_size, channels)
    elif VALID in parts:
        validating = parts[VALID]
    else:
        training, validating = training.divided(seed)
    testing = test.part(TEST, image_size, channels) if test is not None else parts.get(TEST)
    first, second = training.read(classes), validating.read(classes)
    third = second if testing is None else testing.read(classes)
    splits = make_splits(first, second, third, "train")
    return Task(name, classes, *(splits if testing is not None else (splits[0], splits[1], splits[1])))


def _firsts(found: Labelled) -> list[int]:
    """The position of the first image of each class, of at most twenty."""
    return [int((found.labels == number).nonzero()[0]) for number in torch.unique(found.labels).tolist()[:20]]


def _holds_parquet(place: Path) -> bool:
    return any(next(place.glob(pattern), None) is not None for pattern in ("*.parquet", "*/*.parquet"))
