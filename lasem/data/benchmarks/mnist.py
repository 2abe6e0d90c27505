"""MNIST as five or ten tasks with two answers, as in the code of LASEM's authors.

.. [LeCun1998] Y. LeCun, L. Bottou, Y. Bengio, P. Haffner. Gradient-Based Learning Applied to Document Recognition.
   Proceedings of the IEEE 86(11), 1998.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, final

import numpy as np
import torch
from numpy.typing import NDArray

from lasem.data.benchmarks.download import Download
from lasem.data.benchmarks.parquet_files import parquet_labelled
from lasem.data.benchmarks.source import BenchmarkSettings, Layout, choose, open_benchmark
from lasem.data.benchmarks.stand_in import stand_in_images
from lasem.data.benchmarks.two_way import NUM_CLASSES, TwoWaySettings, cut_two_way
from lasem.data.cut import TEST, TRAIN
from lasem.data.images import TensorImages
from lasem.data.labelled import Labelled
from lasem.data.stream import AbstractReader, TaskStream
from lasem.errors import DataError

_NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_CHECKSUMS = (
    "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "d53e105ee54ea40749a09fcbcd1e9432",
    "9fb629c4189551a2d022fa330f9573f3",
    "ec29112dd5afa0611ce80d1b7f02629c",
)

LAYOUT: Final = Layout(
    title="MNIST (idx files, packed or not)",
    files=tuple(f"{name}.gz|{name}" for name in _NAMES),
    folders=("raw", "MNIST/raw"),
    parquet="mnist",
    downloads=tuple(
        Download(url=f"https://ossci-datasets.s3.amazonaws.com/mnist/{name}.gz", checksum=f"md5:{checksum}")
        for name, checksum in zip(_NAMES, _CHECKSUMS, strict=True)
    ),
)


@final
@dataclass(frozen=True, kw_only=True)
class MnistReader(BenchmarkSettings, TwoWaySettings, AbstractReader):
    """70,000 grey images of 28x28 pixels, the ten digits ([LeCun1998]_).

    Files: the four idx files, packed or not, or parquet as on the Hugging Face Hub (columns ``image`` and ``label``).
    The default is the authors' 3 % of the data: 300 training, 60 validation and 1,800 test images a task.
    """

    name: ClassVar[str] = "mnist"
    valid_share: ClassVar[float] = 1 / 12

    num_train: int = 300
    """Training images of each task."""
    num_test: int = 1800
    """Test images of each task, at most."""

    def __post_init__(self) -> None:
        BenchmarkSettings.__post_init__(self)
        TwoWaySettings.__post_init__(self)

    def open(self, seed: int) -> TaskStream:
        """See AbstractReader."""

        def read(folder: Path) -> TaskStream:
            data = parquet_labelled(folder, "image", "label", channels=1) or read_mnist(folder)
            return data.stream(cut_two_way(self, data, seed), name=self.name, standardise=self.standardise)

        return open_benchmark(self, self.name, LAYOUT, read=read, write_stand_in=write_stand_in)


def read_mnist(folder: Path) -> Labelled:
    """Read the four files.

    Raises:
        DataError: if one is damaged, or images and labels do not belong to each other.
    """
    images, labels, parts = [], [], []
    for part, (image_file, label_file) in ((TRAIN, LAYOUT.files[:2]), (TEST, LAYOUT.files[2:])):
        image_path, label_path = choose(folder, image_file), choose(folder, label_file)
        images.append(read_idx(image_path, dimensions=3))
        labels.append(read_idx(label_path, dimensions=1))
        if len(images[-1]) != len(labels[-1]):
            raise DataError(
                f"Expected a label in {label_path} for each image of {image_path}; got {len(labels[-1])} labels and "
                f"{len(images[-1])} images."
            )
        parts.append(torch.full((len(labels[-1]),), part))
    pixels = torch.from_numpy(np.concatenate(images)).unsqueeze(1)
    return Labelled(
        torch.from_numpy(np.concatenate(labels).astype(np.int64)),
        torch.cat(parts),
        tuple(str(digit) for digit in range(NUM_CLASSES)),
        lambda positions: TensorImages(pixels[positions]),
    )


def read_idx(path: Path, *, dimensions: int) -> NDArray[np.uint8]:
    """Read an array of bytes in the idx format: 0, 0, 8 (bytes), the number of dimensions, their sizes, the values.

    Raises:
        DataError: if it is another file, or not whole.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"Expected a packed idx file, but {path} cannot be read: {error}. Get it again.") from error
    header = 4 + 4 * dimensions
    whole = data[:4] == bytes([0, 0, 8, dimensions]) and len(data) >= header
    sizes = tuple(int(size) for size in np.frombuffer(data[4:header], dtype=">u4")) if whole else ()
    if not whole or len(data) != header + int(np.prod(sizes)):
        raise DataError(
            f"Expected an idx file of bytes with {dimensions} dimensions, whole, at {path}; got {len(data)} bytes that "
            f"begin with {data[:header].hex(' ')}. Get it again."
        )
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(sizes).copy()


def write_idx(path: Path, values: NDArray[np.uint8]) -> None:
    """Write an array of bytes in the idx format, packed."""
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, dtype=">u4").tobytes()
    path.write_bytes(gzip.compress(header + values.tobytes(), compresslevel=1, mtime=0))


def write_stand_in(folder: Path) -> None:
    """Write 400 training images of each digit and 100 test images in the four files."""
    for part, num in ((0, 400), (1, 100)):
        labels = np.arange(NUM_CLASSES, dtype=np.uint8).repeat(num)
        images = np.concatenate([stand_in_images(num, (1, 28, 28), label=k, part=part) for k in range(NUM_CLASSES)])
        write_idx(folder / f"{_NAMES[2 * part]}.gz", images[:, 0])
        write_idx(folder / f"{_NAMES[2 * part + 1]}.gz", labels)
