"""One task from image folders or parquet files, a path for each split or one for all."""

from dataclasses import dataclass, replace
from typing import Any, final

import torch

from lasem.data.decode import Channels, DamagedError, Resize
from lasem.data.folders import FILE_SUFFIXES, FolderReader
from lasem.data.labelled import Labelled, and_left_out, counted
from lasem.data.parquet import ParquetReader, holds_tables
from lasem.data.readers import existing_path
from lasem.data.split import Part, Standardise
from lasem.data.task import Task, check_classes, child_generator, make_task
from lasem.data.texts import TextReader
from lasem.errors import DataError

VALID_SHARE = 0.15
"""Share of each class's training images that validates if there are no other images to validate with."""

MAX_FOUND_SIZE = 256
"""Largest side that a network takes from the images' own size; above, a person has to choose one."""


@final
@dataclass(frozen=True, kw_only=True)
class Source:
    """Labelled images, a folder ``CLASS/*.png`` or a parquet file or folder in the Hugging Face layout; or texts.

    Either may hold one split, or several in the usual layout (``train/``, ``valid/`` and ``test/`` above the classes'
    folders, ``train-00000-of-00002.parquet``). Lists and archives are read as FolderReader reads them.
    """

    path: str
    image_column: str = "image"
    """Of a parquet file or a list."""
    label_column: str = "label"
    """Of a parquet file or a list."""
    skip_damaged: bool = False
    """Leave out images that cannot be decoded; else they are an error."""
    text_column: str | None = None
    """Of a table of texts, as TextReader reads it; None: there are images."""

    def labelled(self, image_size: int | Resize | None, channels: Channels) -> Labelled:
        """Find each image's or text's class and split; what is not divided is training. DataError if there are none."""
        if self.text_column is not None:
            return TextReader(path=self.path, text_column=self.text_column, label_column=self.label_column).labelled()
        place = existing_path(self.path)
        in_files = not holds_tables(place) if place.is_dir() else place.name.lower().endswith(FILE_SUFFIXES)
        kind: type[FolderReader] | type[ParquetReader] = FolderReader if in_files else ParquetReader
        return kind(
            path=self.path,
            **_as_settings(image_size),
            channels=channels,
            image_column=self.image_column,
            label_column=self.label_column,
            skip_damaged=self.skip_damaged,
        ).labelled()

    def part(self, wanted: Part, image_size: int | Resize | None, channels: Channels) -> Labelled:
        """Find the images of one split, or all where nothing is divided; DataError if that split is not there."""
        data = self.labelled(image_size, channels)
        there = [part for part in Part if bool((data.parts == part).any())]
        if there == [Part.TRAIN]:
            return data
        if wanted not in there:
            raise DataError(
                f"Expected a split '{wanted.word}' in {self.path}; there are {', '.join(part.word for part in there)}. "
                f"Name the folder or file of the split itself."
            )
        left_out = tuple((part, why) for part, why in data.left_out if part == wanted)
        return replace(data.only(data.parts == wanted), left_out=left_out)

    def find_shape(self, image_size: int | None = None) -> tuple[int, Channels]:
        """Find the side of the first image of each class, and the channels: 1 if no image has a pixel in colour.

        DataError if they are not equally large squares, or too large to be taken as they are where no size is given.
        """
        sizes = self.first_sizes(image_size)
        height, width = sizes[0]
        if len(sizes) > 1 or height != width or (image_size is None and height > MAX_FOUND_SIZE):
            raise DataError(
                f"Expected square images of one size, at most {MAX_FOUND_SIZE} pixels a side, in {self.path}; got "
                f"{' and '.join(f'{high}x{wide}' for high, wide in sizes[:2])} (height x width). Say with image_size "
                f"(--image-size) to which side all images are resized, for instance 64."
            )
        return height, 3 if self.in_colour(height) else 1

    def first_sizes(self, image_size: int | None = None) -> list[tuple[int, int]]:
        """Return the heights and widths of the first image of each class, rising."""
        kept = replace(self, skip_damaged=False)  # they are left out, or named, when all are read
        return kept.labelled(image_size, 3).first_sizes()

    def in_colour(self, image_size: int | Resize) -> bool:
        """Whether any pixel of all images is not grey."""
        return replace(self, skip_damaged=False).labelled(image_size, 3).in_colour()


def task_from(
    name: str,
    train: Source,
    valid: Source | None = None,
    test: Source | None = None,
    *,
    image_size: int | Resize | None,
    channels: Channels,
    seed: int,
) -> Task:
    """Make a task; every image is resized and converted, texts stay as they are.

    Images to validate with are those of ``valid``, or of ``train``'s own split, or by the seed a share of each class;
    those to test with are of ``test``, or of ``train``'s own split, or those that validate. DataError if anything is
    not there or not what it must be.
    """
    return task_of(
        name,
        train.labelled(image_size, channels),
        None if valid is None else valid.part(Part.VALID, image_size, channels),
        None if test is None else test.part(Part.TEST, image_size, channels),
        standardise="train" if train.text_column is None else "none",
        seed=seed,
    )


def task_of(
    name: str,
    data: Labelled,
    valid: Labelled | None = None,
    test: Labelled | None = None,
    *,
    standardise: Standardise,
    seed: int,
) -> Task:
    """Make a task of labelled images or texts; see ``task_from``."""
    training, validating, testing = (data.only(data.parts == part) for part in Part)
    classes, none = training.classes, and_left_out(counted(data.left_out))
    if len(classes) < 2:
        raise DataError(
            f"Expected {data.unit} of at least 2 classes to train with in {data.where}; there are {len(classes)}"
            f"{f' ({classes[0]})' if classes else ''}{none}."
        )
    check_classes(classes)
    if valid is not None:
        validating = valid
    elif not len(validating.labels):
        training, validating = divided(training, seed)
    testing = testing if test is None else test
    left_out = [*data.left_out, *(valid.left_out if valid else ()), *(test.left_out if test else ())]
    try:
        parts = [training.read(classes), validating.read(classes)]
        parts.append(testing.read(classes) if len(testing.labels) else parts[Part.VALID])
        return replace(make_task(name, classes, parts, standardise), left_out=counted(left_out))
    except DamagedError as error:
        damaged = [why for of_part in (training, validating, testing) for why in of_part.damaged().values()]
        raise DamagedError(dict(enumerate(dict.fromkeys(damaged)))) from error


def _as_settings(size: int | Resize | None) -> dict[str, Any]:
    """The settings of a reader that resizes so."""
    if isinstance(size, Resize):
        return {"image_size": size.side, "crop": size.crop, "interpolation": size.interpolation}
    return {"image_size": size}


def divided(data: Labelled, seed: int) -> tuple[Labelled, Labelled]:
    """Divide images into the rest and a share of each class to validate, which depends on the seed alone."""
    taken = []
    for number in torch.unique(data.labels).tolist():
        group = (data.labels == number).nonzero()[:, 0]
        if len(group) < 2:
            raise DataError(
                f"Class '{data.class_names[number]}' has too few {data.unit} in {data.where}: expected at least 2, one "
                f"to train and one to validate; there is {len(group)}. Add {data.unit}, or give others to validate "
                f"(--valid)."
            )
        shuffled = group[torch.randperm(len(group), generator=child_generator(seed, number))]
        taken.append(shuffled[: max(1, round(VALID_SHARE * len(group)))])
    validates = torch.isin(torch.arange(len(data.labels)), torch.cat(taken))
    return data.only(~validates), data.only(validates)
