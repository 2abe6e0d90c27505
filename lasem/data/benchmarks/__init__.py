"""The streams of the paper and of its authors' code, from the published files."""

from typing import Any

from lasem.data.benchmarks.hub import Cifar10Reader, Cifar100Reader, MnistReader
from lasem.data.benchmarks.office_home import OfficeHomeIncrementalReader, OfficeHomeReader
from lasem.data.benchmarks.omniglot import OmniglotReader
from lasem.data.benchmarks.stl10 import Stl10Reader

BENCHMARKS: tuple[type[Any], ...] = (
    Cifar100Reader,
    OfficeHomeReader,
    OfficeHomeIncrementalReader,
    Stl10Reader,
    Cifar10Reader,
    MnistReader,
    OmniglotReader,
)
"""Every benchmark's reader, the paper's first."""

__all__ = [
    "BENCHMARKS",
    "Cifar10Reader",
    "Cifar100Reader",
    "MnistReader",
    "OfficeHomeIncrementalReader",
    "OfficeHomeReader",
    "OmniglotReader",
    "Stl10Reader",
]
