"""Data sets of other libraries as tasks: Hugging Face datasets, and benchmarks of Avalanche.

Neither library is imported here; the objects that are given bring what is needed of theirs.

.. [Lomonaco2021] V. Lomonaco et al. Avalanche: an End-to-End Library for Continual Learning. CVPR Workshops 2021.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lasem.data.decode import Channels, DamagedError, Resize, decode
from lasem.data.images import AbstractImages, TensorImages
from lasem.data.labelled import Labelled
from lasem.data.parquet import Column, merged_labels
from lasem.data.readers import split_of
from lasem.data.sources import divided, task_of
from lasem.data.task import Task, TaskStream
from lasem.data.tokens import Texts
from lasem.errors import DataError, nearest


def from_dataset(
    name: str,
    dataset: Any,
    *,
    image: str = "image",
    text: str | None = None,
    label: str = "label",
    image_size: int | Resize | None = None,
    channels: Channels = 3,
    seed: int = 0,
) -> Task:
    """Make a task of a Hugging Face ``Dataset`` or ``DatasetDict`` of images, or of texts.

    Args:
        name: of the task.
        dataset: one ``Dataset``; or one for each split by its name (train, validation, test). Images to validate with
            are a share of each class of the training images by the seed, and those to test with are those, where there
            are no others.
        image: column of images, of the feature ``Image``.
        text: column of texts, which is read in place of images; for networks that have a tokenizer.
        label: column of classes, of the feature ``ClassLabel``, integers or strings. Rows without a label (none, -1)
            are left out.
        image_size: what all images are resized to; None: they have one size.
        channels: 1 for grey, 3 for colour.
        seed: which images validate, if the data do not say.

    Raises:
        DataError: if a column, a class or a split is not there, or an image cannot be decoded.
    """
    data = labelled_dataset(
        dataset, image=image, text=text, label=label, image_size=image_size, channels=channels, where=f"task '{name}'"
    )
    return task_of(name, data, seed=seed, standardise="none" if text else "train")


def labelled_dataset(
    dataset: Any,
    *,
    image: str = "image",
    text: str | None = None,
    label: str = "label",
    image_size: int | Resize | None = None,
    channels: Channels = 3,
    where: str = "the data set",
) -> Labelled:
    """Find each row's class and split, for ``Labelled.disjoint`` to cut it into tasks; see ``from_dataset``."""
    splits = dict(dataset) if isinstance(dataset, Mapping) else {"train": dataset}
    parts, columns, used = [], [], text or image
    for split, table in splits.items():
        spoken = split_of(split)
        if spoken is None:
            raise DataError(f"Expected splits such as train, validation and test; got '{split}'. Give a dict of those.")
        if not hasattr(table, "features") or not hasattr(table, "__len__"):
            raise DataError(
                f"Expected a Dataset with a length; got {type(table).__name__}. Take some of its rows first."
            )
        for column in (used, label):
            if column not in table.column_names:
                there = ", ".join(table.column_names)
                raise DataError(
                    f"Expected a column '{column}'; there are: {there}.{nearest(column, table.column_names)}"
                )
        known: dict[Any, int] = {}
        places = [known.setdefault(value, len(known)) for value in table[label]]
        columns.append(Column(np.array(places, np.int64), list(known), getattr(table.features[label], "names", None)))
        parts += [spoken[0]] * len(places)
    labels, class_names = merged_labels([Path(split) for split in splits], columns, label)
    rows = [(split, row) for split, table in splits.items() for row in range(len(table))]
    if text is None:
        cells = {split: _images(table, image) for split, table in splits.items()}
    else:
        cells = {split: [value or "" for value in table[text]] for split, table in splits.items()}

    def name_of(position: int) -> str:
        return f"{rows[position][0]}, row {rows[position][1]}"

    def take(positions: Tensor) -> AbstractImages:
        chosen = [rows[position] for position in positions.tolist()]
        if text is not None:
            return Texts([cells[split][row] for split, row in chosen])
        found, damaged = list[Tensor](), dict[int, tuple[str, str]]()
        for place, (split, row) in enumerate(chosen):
            cell, said = cells[split][row][image], f"{split}, row {row}, column '{image}'"
            if cell is None:
                raise DataError(f"Expected an image in every row; {said} holds none. Leave the row out.")
            try:
                found.append(decode(cell["bytes"] or Path(cell["path"]), said, channels=channels, size=image_size))
            except DamagedError as error:
                damaged[place] = error.reasons[0]
        if damaged:
            raise DamagedError(damaged)
        return TensorImages(_stacked(found, where))

    numbers = torch.cat(labels)
    why = ["without a label" if number < 0 else "" for number in numbers.tolist()]
    if text is not None:
        why = [
            reason or ("" if cells[split][row].strip() else "empty")
            for reason, (split, row) in zip(why, rows, strict=True)
        ]
    data = Labelled(
        numbers,
        torch.tensor([int(part) for part in parts]),
        class_names,
        take,
        where,
        tuple((part, reason) for part, reason in zip(parts, why, strict=True) if reason),
        "images" if text is None else "texts",
        name_of,
    )
    return data.only(torch.tensor([not reason for reason in why], dtype=torch.bool))


def from_avalanche(benchmark: Any, *, name: str = "avalanche", seed: int = 0) -> TaskStream:
    """Make a stream of tasks of an Avalanche benchmark's experiences ([Lomonaco2021]_), each read when it is reached.

    Every experience becomes a task called ``NAME-0``, ``NAME-1``, ..., whose classes are those of its training items.
    Items are taken with the transformations of evaluation, for training changes images by itself.

    Args:
        benchmark: has ``train_stream`` and ``test_stream``, and perhaps ``valid_stream``: sequences of experiences,
            whose ``dataset`` has items (x, y, ...), x a tensor (channels, height, width) or an image of Pillow, y an
            integer. One test experience serves all tasks, each with its own classes.
        name: of the stream.
        seed: which images of each class validate, if there is no ``valid_stream``.

    Raises:
        DataError: if the streams have different lengths, or items are not as described.
    """
    streams: list[Any] = [getattr(benchmark, f"{part}_stream", None) for part in ("train", "test", "valid")]
    train, test, valid = streams
    for what, stream in (("test", test), ("valid", valid)):
        if train is None or (stream is None and what == "test"):
            raise DataError(f"Expected train_stream and test_stream; {type(benchmark).__name__} lacks one of them.")
        if stream is not None and len(stream) not in (1, len(train)):
            raise DataError(f"Expected one {what} experience, or one for each of {len(train)}; got {len(stream)}.")

    def task_at(index: int) -> Task:
        called = f"{name}-{index}"
        training = _experience(train[index], f"the training items of {called}")
        classes = training.classes

        def of(stream: Any, what: str) -> Labelled:
            data = _experience(stream[index if len(stream) > 1 else 0], f"the {what} items of {called}")
            return (
                data
                if len(stream) > 1
                else data.only(torch.tensor([c in classes for c in data.class_names])[data.labels])
            )

        training, validating = divided(training, seed) if valid is None else (training, of(valid, "validation"))
        found = [data.read(classes) for data in (training, validating, of(test, "test"))]
        parts = [(images.take(torch.arange(len(images))), labels) for images, labels in found]
        return Task.from_tensors(called, train=parts[0], valid=parts[1], test=parts[2], classes=classes)

    return TaskStream.made_by(task_at, name=name, num_tasks=len(train))


def _experience(experience: Any, where: str) -> Labelled:
    data = experience.dataset
    data = data.eval() if callable(getattr(data, "eval", None)) else data
    items = [data[row] for row in range(len(data))]
    if not items:
        raise DataError(f"Expected at least one of {where}; there is none.")
    images = _stacked([_pixels(item[0], where) for item in items], where)
    values, labels = torch.unique(torch.tensor([int(item[1]) for item in items]), return_inverse=True)
    names = [str(value) for value in values.tolist()]
    return Labelled(labels, torch.zeros_like(labels), names, lambda used: TensorImages(images[used]), where)


def _pixels(x: Any, where: str) -> Tensor:
    if isinstance(x, Tensor):
        return x
    try:
        array = np.array(x)
    except Exception as error:  # of whatever it is
        raise DataError(f"Expected tensors or images of Pillow in {where}; got {type(x).__name__}.") from error
    return torch.from_numpy(array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0).copy())


def _stacked(images: list[Tensor], where: str) -> Tensor:
    sizes = sorted({tuple(image.shape) for image in images})
    if len(sizes) > 1:
        raise DataError(
            f"Expected images of one size in {where}; got {sizes[0]} and {sizes[1]}. Resize them (image_size)."
        )
    return torch.stack(images)


def _images(table: Any, column: str) -> Any:
    """The encoded images of a column: rows with ``bytes`` or ``path``."""
    feature = table.features[column]
    if not hasattr(feature, "decode") or not hasattr(feature, "encode_example"):
        raise DataError(
            f"Expected a column of the feature Image; '{column}' is {feature}. For texts give text='{column}'."
        )
    return table.select_columns([column]).cast_column(column, replace(feature, decode=False))
