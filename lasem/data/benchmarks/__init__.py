"""The streams of the paper and of its authors' code, from the published files."""

from typing import Any

from lasem.data.benchmarks.folders import OfficeHomeIncrementalReader as OfficeHomeIncrementalReader
from lasem.data.benchmarks.folders import OfficeHomeReader as OfficeHomeReader
from lasem.data.benchmarks.folders import OmniglotReader as OmniglotReader
from lasem.data.benchmarks.hub import Cifar10Reader as Cifar10Reader
from lasem.data.benchmarks.hub import Cifar100Reader as Cifar100Reader
from lasem.data.benchmarks.hub import MnistReader as MnistReader
from lasem.data.benchmarks.stl10 import Stl10Reader as Stl10Reader

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
