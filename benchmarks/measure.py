"""What the benchmarks have in common: results and sizes, tasks and loops that take turns, and counts by arithmetic.

The arithmetic is what a step must cost at least: multiplications, and numbers that are kept for the backward pass.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, final

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lasem.data import Task
from lasem.errors import LasemError
from lasem.learner import Learner
from lasem.nets import AbstractNet, ConvBlock, Net
from lasem.search import EM, AbstractSelection
from lasem.sharing import AbstractSharing
from lasem.space import Configuration, PrefixTree, full
from lasem.training import Loop, TrainingConfig

NUM_CLASSES = 10
WHOLE_TREE = EM(first_task="search", commit_probability=2, commit_share=1)
"""Evaluates all configurations and never commits."""


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
    default_nets: Callable[[], dict[str, AbstractNet]]
    """Gives the networks by name with which the default search is compared with plain training."""
    num_tasks: tuple[int, ...]
    """Tasks learned before the next one is timed, rising."""
    turns: int
    """How often the kinds of step take turns."""
    steps: int = 2
    """Steps in a turn."""
    device: str = "cpu"


def make_task(net: AbstractNet, num_classes: int, num_train: int, name: str = "task") -> Task:
    """Random pixels: what is in an image costs no time."""
    generator = torch.Generator().manual_seed(0)

    def split(num: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.rand(num, *net.image_shape, generator=generator), torch.arange(num) % num_classes

    classes = [str(k) for k in range(num_classes)]
    small = max(num_classes, 2)
    return Task.from_tensors(name, train=split(num_train), valid=split(small), test=split(small), classes=classes)


def make_loop(
    net: AbstractNet,
    sharing: AbstractSharing,
    search: AbstractSelection,
    task: Task,
    batch: int,
    device: str = "cpu",
    **settings: Any,
) -> Loop[Any]:
    """The loop that ``learn`` makes, with the initial weights that a learner gives it; more of ``TrainingConfig``."""
    config = TrainingConfig(epochs=10**6, batch_size=batch, drop_last=True, **settings)
    return loop_of(Learner(net, sharing=sharing, search=search, training=config, device=device), task)


def loop_of(learner: Learner, task: Task) -> Loop[Any]:
    """The loop over the first phase of a learner's next task."""
    phase = next(learner.method.plan(learner.model, task, learner.setup))
    return Loop(phase, seeds=(0, 1), device=learner.device)


def in_turns(loops: Mapping[str, Loop[Any]], turns: int) -> dict[str, list[float]]:
    """Seconds that each loop trains in each turn, which is an epoch; the loops take turns.

    Where an epoch ends the loop reads its loss, so that a GPU's work is in the time.
    """
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(turns):
        for name, loop in loops.items():
            _, timing = loop.run_epoch()
            seconds[name].append(timing.seconds_training)
    return seconds


def take_turns(loops: Mapping[str, Loop[Any]], turns: int) -> dict[str, list[float]]:
    """Seconds of a step of each loop in each turn; a first turn warms up."""
    seconds = in_turns(loops, turns + 1)
    return {name: [time / loops[name].phase.num_batches for time in times[1:]] for name, times in seconds.items()}


def ratio(one: list[float], other: list[float]) -> float:
    """Median over the turns of the ratio within a turn: a machine that is busy for a while slows both."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def peak_bytes(loop: Loop[Any]) -> int:
    """Most bytes of tensors alive at once in an epoch, apart from what was there before it."""
    loop.run_epoch()  # so that the optimiser's state is there
    memory = PeakMemory()
    with memory:
        loop.run_epoch()
    return memory.peak


@final
class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all storages that were made inside it and are still alive, after every operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak: int = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count."""
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in given:  # a view or an in-place result is of what was there
                    self._alive[storage._cdata] = (_weakly(storage), storage.nbytes())
        self._alive = {key: entry for key, entry in self._alive.items() if not _is_gone(entry[0])}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return out


def _weakly(storage: torch.UntypedStorage) -> StorageWeakRef:
    return StorageWeakRef(storage)  # type: ignore[no-untyped-call]


def _is_gone(storage: StorageWeakRef) -> bool:
    return bool(storage.expired())  # type: ignore[no-untyped-call]


def conv_sizes(net: Net) -> list[tuple[ConvBlock, int, int]]:
    """Each convolution with the height and width that it gives before pooling."""
    _, height, width = net.image_shape
    sizes = []
    for block in net.blocks:
        assert isinstance(block, ConvBlock)
        rows, columns = (math.ceil(side / block.stride) for side in (height, width))
        sizes.append((block, rows, columns))
        height, width = block.output_size(height), block.output_size(width)
    return sizes


def arithmetic_floor(net: Net, num_classes: int, configurations: Iterable[Configuration] | None = None) -> float:
    """Multiplications of a prefix tree over those of one network; the E-step's second head is not counted.

    Args:
        net: convolutions and a head.
        num_classes: of the task.
        configurations: the tree's leaves; all if not given.
    """
    layers = [math.prod(block.shapes["weight"]) * rows * columns for block, rows, columns in conv_sizes(net)]
    head = sum(a * b for a, b in pairwise((net.head.in_features, *net.head.hidden, num_classes)))
    tree = PrefixTree.of(tuple(full(net.depth) if configurations is None else configurations))
    total = sum(level.num_nodes * cost for level, cost in zip(tree.levels, layers, strict=True))
    return (total + tree.num_leaves * head) / (sum(layers) + head)


def leaf_activation_bytes(net: Net, batch: int, num_leaves: int | None = None) -> int:
    """Bytes of what every layer of every configuration gives, in float32; of all 2^d configurations if not said."""
    return 4 * batch * sum(_given(net)) * (2**net.depth if num_leaves is None else num_leaves)


def node_activation_bytes(net: Net, batch: int, configurations: Iterable[Configuration]) -> int:
    """Bytes of what every node of a prefix tree gives, which the backward pass needs; in float32."""
    tree = PrefixTree.of(tuple(configurations))
    return 4 * batch * sum(level.num_nodes * num for level, num in zip(tree.levels, _given(net), strict=True))


def _given(net: Net) -> list[int]:
    """Numbers that each layer gives for an image: after ReLU, and after pooling where there is any."""
    numbers = []
    for block, rows, columns in conv_sizes(net):
        pooled = math.ceil(rows / block.pool) * math.ceil(columns / block.pool) if block.pool > 1 else 0
        numbers.append(block.out_channels * (rows * columns + pooled))
    return numbers
