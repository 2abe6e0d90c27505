"""Readers of tensors and of image folders, and what every reader of files has in common."""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, final

import numpy as np
import torch

from lasem.data.decode import Channels
from lasem.data.images import AbstractImages, FileImages, Scale, SelectedImages, TensorImages, on_one_scale
from lasem.data.labelled import CutSettings, Labelled
from lasem.data.split import Part
from lasem.data.task import AbstractReader, TaskStream, pair
from lasem.errors import DataError, nearest
from lasem.settings import Range

SPLIT_NAMES: Final = {
    "train": Part.TRAIN,
    "training": Part.TRAIN,
    "valid": Part.VALID,
    "validation": Part.VALID,
    "val": Part.VALID,
    "dev": Part.VALID,
    "test": Part.TEST,
    "testing": Part.TEST,
}
"""Names of splits in files and folders."""

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Endings of image files, in small or capital letters; other files are passed over."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class TensorReader(CutSettings, AbstractReader):
    """Cuts tensors or arrays into tasks.

    Images are (N, channels, height, width), or (N, height, width) for grey, uint8 or floating; labels (N,), integers.
    """

    name: ClassVar[str] = "tensors"

    images: Any
    """Training images; validation and test images are taken from them if there are no others."""
    labels: Any
    """Their labels."""
    valid_images: Any = None
    """Validation images, if they are apart."""
    valid_labels: Any = None
    """Their labels."""
    test_images: Any = None
    """Test images, if they are apart."""
    test_labels: Any = None
    """Their labels."""
    class_names: Sequence[str] | None = None
    """The name of each class, if labels are positions in it; None: labels may be any integers, and name themselves."""
    stream_name: str = "tensors"
    """Task names begin with it."""
    scale: Scale = "auto"
    """The value of white in the images, as in ``Task.from_tensors``."""

    def open(self, seed: int) -> TaskStream:
        images, labels, parts = [], [], []
        for part, some, their_labels in (
            (Part.TRAIN, self.images, self.labels),
            (Part.VALID, self.valid_images, self.valid_labels),
            (Part.TEST, self.test_images, self.test_labels),
        ):
            if part != Part.TRAIN and some is None and their_labels is None:
                continue
            if some is None or their_labels is None:
                raise DataError(f"Expected images and labels for split '{part.word}'; got one without the other.")
            checked, numbers = pair(some, their_labels, f"split '{part.word}'")
            images.append(checked)
            labels.append(numbers)
            parts.append(torch.full_like(numbers, part))
        if len({of_part.shape for of_part in images}) > 1:
            raise DataError(
                "Expected the images of all splits to be of one shape (channels, height, width); got "
                f"{', '.join(str(of_part.shape) for of_part in images)}."
            )
        scaled = on_one_scale(images, [f"split '{Part(int(of_part[:1].sum())).word}'" for of_part in parts], self.scale)
        all_labels, class_names = torch.cat(labels), self.class_names
        if class_names is None:
            known, all_labels = torch.unique(all_labels, return_inverse=True)
            class_names = [str(number) for number in known.tolist()]
        joined = TensorImages(torch.cat([of_part.tensor for of_part in scaled]), scaled[0].scale or "none")
        data = Labelled(all_labels, torch.cat(parts), class_names, lambda used: SelectedImages(joined, used))
        return data.disjoint(self, seed, self.stream_name)


@dataclass(frozen=True, kw_only=True)
class FileReader(CutSettings, AbstractReader):
    """Settings of readers of files, and how the files become tasks."""

    path: str
    """A file or folder."""
    image_size: Annotated[int, Range(least=1, most=8192)] | None = None
    """Height and width that every image is resized to, whatever its sides were; None: all must be equally large."""
    channels: Channels = 3
    """3 for colour, 1 for grey; images are converted."""

    @abstractmethod
    def labelled(self) -> Labelled:
        """Find every image's class and split, without decoding any."""

    def open(self, seed: int) -> TaskStream:
        """Open the stream; it and its tasks are named after the file or folder."""
        data = self.labelled()
        full = Path(os.path.abspath(existing_path(self.path)))  # not resolve(): a link is called by its own name
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", full.name if full.is_dir() else full.stem)[:80]
        return data.disjoint(self, seed, name or "stream")


@final
@dataclass(frozen=True, kw_only=True)
class FolderReader(FileReader):
    """Cuts folders of images into tasks; each folder of images is a class, its name the class's."""

    name: ClassVar[str] = "folder"

    path: str
    """Folder that holds one folder for each class; or ``train`` and, if there are, ``valid`` and ``test``, and the
    classes' folders in these. Images may also be in folders below their class's."""
    memory_limit_mb: Annotated[int, Range(least=0)] = 1024
    """The images used wait in memory if they need at most so many megabytes. Above, they are decoded whenever they are
    needed, and all of a task's are once looked at when it begins. The numbers are the same either way."""

    def labelled(self) -> Labelled:
        place = existing_path(self.path)
        if not place.is_dir():
            raise DataError(f"Expected a folder of images at {place}, but it is a file.")
        files = [(part, folder.name, file) for part, folder in _class_folders(place) for file in _images_of(folder)]
        class_names = sorted({name for _, name, _ in files})
        number_of = {name: number for number, name in enumerate(class_names)}
        labels = torch.tensor([number_of[name] for _, name, _ in files])
        parts = torch.tensor([part for part, _, _ in files])

        def take(used: torch.Tensor) -> AbstractImages:
            images = FileImages([files[k][2] for k in used.tolist()], channels=self.channels, size=self.image_size)
            fits = len(images) * int(np.prod(images.shape)) <= self.memory_limit_mb * 2**20
            return images.in_memory() if fits else images

        return Labelled(labels, parts, class_names, take, self.path)


def existing_path(path: str) -> Path:
    """Return the path, ``~`` expanded.

    Raises:
        DataError: if nothing is there; the message names the nearest neighbour.
    """
    place = Path(path).expanduser()
    if not place.exists():
        there = sorted(entry.name for entry in place.parent.iterdir()) if place.parent.is_dir() else []
        raise DataError(f"Expected a file or folder at {place}, but there is none.{nearest(place.name, there)}")
    return place


def images_below(folder: Path) -> list[Path]:
    """Return every image in a folder and in those below it, by name.

    What begins with a dot is passed over with all that is in it, as thumbnails and checkpoints are; links to folders
    are not followed.
    """
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def _folders_in(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _class_folders(place: Path) -> Iterator[tuple[Part, Path]]:
    """Find every class's folder and the split that it is in."""
    folders = _folders_in(place)
    if not folders:
        raise DataError(f"Expected a folder for each class in {place}, but it holds no folder.")
    split_folders = [folder for folder in folders if folder.name.lower() in SPLIT_NAMES]
    # A class may be called "train" too; only a folder of folders is a split.
    if not any(_folders_in(folder) for folder in split_folders):
        yield from ((Part.TRAIN, folder) for folder in folders)
        return
    others = [folder.name for folder in folders if folder not in split_folders]
    if others:
        raise DataError(
            f"Expected only folders of splits (train, valid, test) in {place}, as {split_folders[0].name} is one; got "
            f"'{others[0]}' as well.{nearest(others[0], SPLIT_NAMES)}"
        )
    by_part: dict[Part, Path] = {}
    for folder in split_folders:
        part = SPLIT_NAMES[folder.name.lower()]
        if part in by_part:
            raise DataError(
                f"Expected one folder for each split in {place}; got {by_part[part].name} and {folder.name}."
            )
        by_part[part] = folder
    if Part.TRAIN not in by_part:
        raise DataError(f"Expected a folder 'train' next to '{split_folders[0].name}' in {place}, but there is none.")
    train_classes = [folder.name for folder in _folders_in(by_part[Part.TRAIN])]
    for part, folder in sorted(by_part.items()):
        for class_folder in _folders_in(folder):
            if class_folder.name not in train_classes:
                raise DataError(
                    f"Expected only classes that have training images (a folder in {by_part[Part.TRAIN]}); got "
                    f"{class_folder}.{nearest(class_folder.name, train_classes)}"
                )
            yield part, class_folder


def _images_of(folder: Path) -> list[Path]:
    splits = [below for below in _folders_in(folder) if below.name.lower() in SPLIT_NAMES]
    if splits:
        raise DataError(
            f"Expected the images of class '{folder.name}' in {folder}; got a folder of a split there, "
            f"'{splits[0].name}'. Put splits above the classes: {splits[0].name}/{folder.name}/*.png."
        )
    images = images_below(folder)
    if not images:
        raise DataError(
            f"Class '{folder.name}' has too few images: expected at least one file ending in {', '.join(SUFFIXES)} in "
            f"{folder} or below; there are 0. Add images, or remove the folder."
        )
    return images
