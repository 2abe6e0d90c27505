"""CIFAR's binary version: records of label bytes and 3072 pixel bytes, one file or several for each split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lasem.data.cut import TEST, TRAIN
from lasem.data.images import TensorImages
from lasem.data.labelled import Labelled
from lasem.errors import DataError

SHAPE = (3, 32, 32)
_PIXELS = 3072


def read_cifar(
    train: Sequence[Path], test: Sequence[Path], names: Path, *, label_bytes: int, num_classes: int
) -> Labelled:
    """Read labels; pixels stay in the files until they are taken.

    Args:
        train: files of the training split, in order.
        test: files of the test split.
        names: a class's name in each line.
        label_bytes: bytes before the pixels, of which the last one is the label.
        num_classes: how many labels there may be.

    Raises:
        DataError: if a file is no such file.
    """
    class_names = [line.strip() for line in names.read_text(encoding="utf-8").splitlines() if line.strip()]
    if len(class_names) != num_classes:
        raise DataError(f"Expected the names of {num_classes} classes in {names}; got {len(class_names)}.")
    paths = (*train, *test)
    files = [_records(path, label_bytes) for path in paths]
    for path, file in zip(paths, files, strict=True):
        if file[:, label_bytes - 1].max() >= num_classes:
            raise DataError(
                f"Expected labels from 0 to {num_classes - 1} in byte {label_bytes} of each record of {path}; got "
                f"larger ones. Is it another data set's?"
            )
    labels = torch.cat([torch.from_numpy(file[:, label_bytes - 1].astype(np.int64)) for file in files])
    parts = torch.cat([torch.full((len(file),), TRAIN if i < len(train) else TEST) for i, file in enumerate(files)])

    def take(positions: Tensor) -> TensorImages:
        images = np.empty((len(positions), _PIXELS), dtype=np.uint8)
        first = 0
        for file in files:
            inside = (positions >= first) & (positions < first + len(file))
            images[inside.numpy()] = file[(positions[inside] - first).numpy(), label_bytes:]
            first += len(file)
        return TensorImages(torch.from_numpy(images).view(-1, *SHAPE))

    return Labelled(labels, parts, class_names, take)


def write_cifar(path: Path, images: NDArray[np.uint8], labels: Sequence[NDArray[np.uint8]]) -> None:
    """Write records: ``labels`` holds an array (N,) for each label byte, images are (N, 3, 32, 32)."""
    np.concatenate([*(column[:, None] for column in labels), images.reshape(len(images), _PIXELS)], axis=1).tofile(path)


def _records(path: Path, label_bytes: int) -> NDArray[np.uint8]:
    size = path.stat().st_size
    if size == 0 or size % (label_bytes + _PIXELS):
        raise DataError(
            f"Expected records of {label_bytes + _PIXELS} bytes in {path}; its {size} bytes are no multiple of that. "
            f"Is it CIFAR's binary version, and whole?"
        )
    return np.memmap(path, dtype=np.uint8, mode="r").reshape(-1, label_bytes + _PIXELS)
