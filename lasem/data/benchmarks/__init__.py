"""The streams of the paper and of its authors' code, one file each: from the published files, fetched, or made up."""

from typing import Any

from lasem.data.benchmarks.cifar10 import Cifar10Reader
from lasem.data.benchmarks.cifar100 import Cifar100Reader
from lasem.data.benchmarks.mnist import MnistReader
from lasem.data.benchmarks.office_home import OfficeHomeReader
from lasem.data.benchmarks.office_home_incremental import OfficeHomeIncrementalReader
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
