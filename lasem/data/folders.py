"""A stream of image folders: ``class/*.png``, with or without ``train/``, ``valid/`` and ``test/`` above.

Images may lie in folders below their class's, as torchvision's ``ImageFolder`` reads them too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import torch

from lasem.data.checks import check_image_settings
from lasem.data.cut import TRAIN, CutSettings
from lasem.data.decode import Channels
from lasem.data.images import AbstractImages, FileImages, TensorImages
from lasem.data.labelled import Labelled
from lasem.data.names import SPLIT_NAMES, existing_path, stream_name
from lasem.data.stream import AbstractReader, TaskStream
from lasem.errors import DataError, check_range, nearest

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Endings of files that are taken for images, in small or capital letters; other files are passed over."""


@final
@dataclass(frozen=True, kw_only=True)
class FolderReader(CutSettings, AbstractReader):
    """Cuts folders of images into tasks; each folder of images is a class, its name the class's."""

    name: ClassVar[str] = "folder"

    path: str
    """Folder that holds one folder for each class; or ``train`` and, if there are, ``valid`` and ``test``, and the
    classes' folders in these."""
    image_size: int | None = None
    """Height and width that every image is resized to, whatever its sides were; None: all must be equally large."""
    channels: Channels = 3
    """3 for colour, 1 for grey; images are converted."""
    memory_limit_mb: int = 1024
    """The images used wait in memory if they need at most so many megabytes. Above, they are decoded whenever they are
    needed, and all of a task's are once looked at when it begins. The numbers are the same either way."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_image_settings(type(self).__name__, self.image_size, self.channels)
        check_range(f"{type(self).__name__}.memory_limit_mb", self.memory_limit_mb, least=0)

    def open(self, seed: int) -> TaskStream:
        """See AbstractReader. Reads the header of every image that a task uses, and decodes what fits into memory."""
        return self.labelled().disjoint(self, seed, stream_name(existing_path(self.path)))

    def labelled(self) -> Labelled:
        """Every image's class and split; no image is opened yet."""
        place = existing_path(self.path)
        if not place.is_dir():
            raise DataError(f"Expected a folder of images at {place}, but it is a file.")
        found = [(part, folder.name, file) for part, folder in _class_folders(place) for file in _images_of(folder)]
        class_names = sorted({name for _, name, _ in found})
        number_of = {name: number for number, name in enumerate(class_names)}
        labels = torch.tensor([number_of[name] for _, name, _ in found])
        parts = torch.tensor([part for part, _, _ in found])
        return Labelled(labels, parts, class_names, lambda used: self._images([found[p][2] for p in used.tolist()]))

    def _images(self, paths: Sequence[Path]) -> AbstractImages:
        files = FileImages(paths, channels=self.channels, size=self.image_size)
        fits = len(files) * int(np.prod(files.shape)) <= self.memory_limit_mb * 2**20
        return TensorImages(files.take(torch.arange(len(files)))) if fits else files


def _folders_in(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _class_folders(place: Path) -> Iterator[tuple[int, Path]]:
    """Find every class's folder and the split that it is in."""
    folders = _folders_in(place)
    if not folders:
        raise DataError(f"Expected a folder for each class in {place}, but it holds no folder.")
    split_folders = [folder for folder in folders if folder.name.lower() in SPLIT_NAMES]
    # A class may be called "train" too; only a folder of folders is a split.
    if not any(_folders_in(folder) for folder in split_folders):
        yield from ((TRAIN, folder) for folder in folders)
        return
    others = [folder.name for folder in folders if folder not in split_folders]
    if others:
        raise DataError(
            f"Expected only folders of splits (train, valid, test) in {place}, as {split_folders[0].name} is one; got "
            f"'{others[0]}' as well.{nearest(others[0], SPLIT_NAMES)}"
        )
    by_part: dict[int, Path] = {}
    for folder in split_folders:
        part = SPLIT_NAMES[folder.name.lower()]
        if part in by_part:
            raise DataError(
                f"Expected one folder for each split in {place}; got {by_part[part].name} and {folder.name}."
            )
        by_part[part] = folder
    if TRAIN not in by_part:
        raise DataError(f"Expected a folder 'train' beside '{split_folders[0].name}' in {place}, but there is none.")
    train_classes = [folder.name for folder in _folders_in(by_part[TRAIN])]
    for part, folder in sorted(by_part.items()):
        for class_folder in _folders_in(folder):
            if class_folder.name not in train_classes:
                raise DataError(
                    f"Expected only classes that have training images (a folder in {by_part[SPLIT_NAMES['train']]}); "
                    f"got {class_folder}.{nearest(class_folder.name, train_classes)}"
                )
            yield part, class_folder


def images_below(folder: Path) -> list[Path]:
    """Every image in a folder and in those below it, by name.

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
