"""CIFAR-10 as five or ten tasks with two answers, as in the code of LASEM's authors.

.. [Krizhevsky2009] A. Krizhevsky. Learning Multiple Layers of Features from Tiny Images. Technical report, 2009.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, final

import numpy as np

from lasem.data.benchmarks.cifar_files import SHAPE, read_cifar, write_cifar
from lasem.data.benchmarks.download import Download
from lasem.data.benchmarks.parquet_files import parquet_labelled
from lasem.data.benchmarks.source import BenchmarkSettings, Layout, open_benchmark
from lasem.data.benchmarks.stand_in import stand_in_images
from lasem.data.benchmarks.two_way import NUM_CLASSES, TwoWaySettings, cut_two_way
from lasem.data.stream import AbstractReader, TaskStream

_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

LAYOUT: Final = Layout(
    title="CIFAR-10 (binary version)",
    files=(*_TRAIN, "test_batch.bin", "batches.meta.txt"),
    folders=("cifar-10-batches-bin",),
    parquet="plain_text",
    downloads=(
        Download(
            url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            checksum="md5:c32a1d4ab5d03f1284b67883e8d87530",
            unpack=True,
        ),
    ),
)


@final
@dataclass(frozen=True, kw_only=True)
class Cifar10Reader(BenchmarkSettings, TwoWaySettings, AbstractReader):
    """60,000 colour images of 32x32 pixels in ten classes ([Krizhevsky2009]_).

    Files: the binary version, or parquet as on the Hugging Face Hub (columns ``img`` and ``label``). The default is the
    authors' 4 % of the data: 340 training, 60 validation and 2,000 test images a task.
    """

    name: ClassVar[str] = "cifar10"
    valid_share: ClassVar[float] = 1 / 6

    def __post_init__(self) -> None:
        BenchmarkSettings.__post_init__(self)
        TwoWaySettings.__post_init__(self)

    def open(self, seed: int) -> TaskStream:
        """See AbstractReader."""

        def read(folder: Path) -> TaskStream:
            data = parquet_labelled(folder, "img", "label") or read_cifar(
                [folder / name for name in _TRAIN],
                [folder / "test_batch.bin"],
                folder / "batches.meta.txt",
                label_bytes=1,
                num_classes=NUM_CLASSES,
            )
            return data.stream(cut_two_way(self, data, seed), name=self.name, standardise=self.standardise)

        return open_benchmark(self, self.name, LAYOUT, read=read, write_stand_in=write_stand_in)


def write_stand_in(folder: Path) -> None:
    """Write 250 training images of each class in five files, and 100 test images of each, in the binary layout."""
    for part, name in enumerate((*_TRAIN, "test_batch.bin")):
        num = 100 if name == "test_batch.bin" else 50
        labels = np.arange(NUM_CLASSES, dtype=np.uint8).repeat(num)
        images = np.concatenate([stand_in_images(num, SHAPE, label=k, part=part) for k in range(NUM_CLASSES)])
        write_cifar(folder / name, images, [labels])
    (folder / "batches.meta.txt").write_text("".join(f"{name}\n" for name in _CLASSES))
