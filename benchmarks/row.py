"""One line of a benchmark's result, and how large the benchmarks are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from lasem.errors import LasemError
from lasem.nets import Net


class WrongResultError(LasemError):
    """What a fast path has computed is not what the slow one computes."""


@final
@dataclass(frozen=True)
class Row:
    """One thing that was measured."""

    benchmark: str
    setting: str
    """What it was measured with, for instance ``hps, batch 10``."""
    what: str
    """What the number means, for instance ``tree step / plain step``."""
    value: float
    floor: float | None = None
    """What the number would be if nothing took time (or room) but the multiplications (or what must be stored)."""


@final
@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is measured."""

    net: Net
    """The network of the steps and of whole tasks."""
    sharings: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    """Of the steps; the first one is that of whole tasks."""
    throughput_sizes: tuple[int, ...]
    epochs: int
    """Of a whole task."""
    images: int
    """Training images of a whole task."""
    depths: tuple[int, ...]
    """Layers of the narrow network for deep EM."""
    listed_depths: tuple[int, ...]
    """Layers of the narrow network whose configurations are all evaluated."""
    num_tasks: tuple[int, ...]
    """Tasks learned before the next one is timed, rising."""
    turns: int
    """How often the kinds of step take turns."""
    steps: int = 2
    """Steps in a turn."""
    device: str = "cpu"
