"""What the exact search costs: one training step over all 2^d configurations against one step of the plain network.

Prints ratios, which mean the same on every machine; seconds are printed only to show how long was measured.

Time. A tree step is what the trainer does with a mini-batch while it searches: the prefix tree's forward pass, the
E-step, the head twice (without and with dropout), the backward pass through the weighted sum, one optimiser step. A
plain step is what it does with the same network and mini-batch under ``Fixed("none")``: no shared knowledge, one
configuration. ``committed`` is the step after a search has ended (all layers transferred). The three take turns, and
each ratio is the median over the turns of the ratio within a turn, so that a machine that is busy for a while slows
all of them. Beside it stands the arithmetic's floor: multiplications of the tree's layers over those of one network.

Memory. The peak is of all bytes that were allocated by tensors since the step began and are alive at once: what the
forward pass saves, gradients, temporary values between operations. It is compared with the leaves' activations: what
every layer gives (after ReLU, and after pooling where there is any), for each of the 2^d configurations once.

Run ``python benchmarks/tree_step.py`` on an idle machine; ``--smoke`` takes seconds and measures nothing of use.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, final

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lasem.data import Task
from lasem.learner import Learner
from lasem.nets import ConvBlock, Net, cifar
from lasem.search import EM, AbstractSearch, Fixed
from lasem.sharing import SHARINGS, AbstractSharing
from lasem.space import PrefixTree, full
from lasem.training import Loop, TrainingConfig, plan_of

SEARCH = EM(first_task="search", commit_probability=2, commit_share=1)  # never commits
SMALL = Net(image_shape=(3, 8, 8), channels=(4, 4, 8, 8), kernels=(3,) * 4, pools=(1, 2, 1, 2), hidden=(8,))


@final
@dataclass(frozen=True)
class Result:
    """One mechanism's costs, as multiples of the plain network's."""

    sharing: str
    batch: int
    threads: int
    tree: float
    """Tree step over plain step."""
    floor: float
    """The same by counting multiplications."""
    committed: float
    """Step after commitment over plain step."""
    memory: float
    """Peak bytes of a tree step over the bytes of the leaves' activations."""
    plain_seconds: float


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


def arithmetic_floor(net: Net, num_classes: int) -> float:
    """Multiplications of the prefix tree over those of one network; the E-step's second head is not counted."""
    layers = [math.prod(block.shapes["weight"]) * rows * columns for block, rows, columns in conv_sizes(net)]
    head = sum(a * b for a, b in pairwise((net.head.in_features, *net.head.hidden, num_classes)))
    tree = PrefixTree.of(tuple(full(net.depth)))
    total = sum(level.num_nodes * cost for level, cost in zip(tree.levels, layers, strict=True))
    return (total + tree.num_leaves * head) / (sum(layers) + head)


def leaf_activation_bytes(net: Net, batch: int) -> int:
    """Bytes of what every layer of every configuration gives, in float32."""
    numbers = 0
    for block, rows, columns in conv_sizes(net):
        numbers += block.out_channels * rows * columns
        if block.pool > 1:
            numbers += block.out_channels * math.ceil(rows / block.pool) * math.ceil(columns / block.pool)
    return 4 * numbers * batch * 2**net.depth


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all storages that were made inside it and are still alive, after every operation."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in given:  # a view or an in-place result is of what was there
                    self._alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return out


def make_task(net: Net, num_classes: int, num_train: int) -> Task:
    """Random pixels: what is in an image costs no time."""

    def split(num: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.rand(num, *net.image_shape), torch.arange(num) % num_classes

    classes = [str(k) for k in range(num_classes)]
    small = max(num_classes, 2)
    return Task.from_tensors("task", train=split(num_train), valid=split(small), test=split(small), classes=classes)


def make_loop(net: Net, sharing: AbstractSharing, search: AbstractSearch, task: Task, batch: int) -> Loop:
    """The loop that ``learn`` makes, with the initial weights that a learner gives it."""
    config = TrainingConfig(epochs=10**6, batch_size=batch, drop_last=True)
    learner = Learner(net, sharing=sharing, search=search, training=config)
    phase = next(plan_of(search, learner.problem(task)))
    return Loop(phase, seeds=(0, 1), device=learner.device)


def measure(net: Net, sharing: AbstractSharing, *, batch: int, turns: int, steps: int, num_classes: int = 10) -> Result:
    """Let the three kinds of step take turns; then one tree step under the eyes of ``PeakMemory``."""
    task = make_task(net, num_classes, batch * steps)
    searches = {"plain": Fixed("none"), "committed": Fixed("all"), "tree": SEARCH}
    loops = {name: make_loop(net, sharing, search, task, batch) for name, search in searches.items()}
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(turns + 1):
        for name, loop in loops.items():
            _, timing = loop.run_epoch()
            if turn > 0:  # the first turn warms up
                seconds[name].append(timing.seconds_training / steps)

    def ratio(name: str) -> float:
        return statistics.median(a / b for a, b in zip(seconds[name], seconds["plain"], strict=True))

    one = make_loop(net, sharing, SEARCH, make_task(net, num_classes, batch), batch)
    one.run_epoch()  # so that the optimiser's state is there before
    with PeakMemory() as memory:
        one.run_epoch()
    return Result(
        sharing=sharing.name,
        batch=batch,
        threads=torch.get_num_threads(),
        tree=ratio("tree"),
        floor=arithmetic_floor(net, num_classes),
        committed=ratio("committed"),
        memory=memory.peak / leaf_activation_bytes(net, batch),
        plain_seconds=statistics.median(seconds["plain"]),
    )


def main(arguments: Sequence[str] | None = None) -> list[Result]:
    """Measure as the command line says, print a line for each, and return them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[10], help="images in a mini-batch (default: 10)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="threads of torch (default: 1)")
    parser.add_argument("--sharing", nargs="+", choices=list(SHARINGS), default=["hps", "tf", "dfcnn"])
    parser.add_argument("--turns", type=int, default=15, help="turns of each kind of step (default: 15)")
    parser.add_argument("--steps", type=int, default=2, help="steps in a turn (default: 2)")
    parser.add_argument("--smoke", action="store_true", help="a tiny network and two turns: does it run?")
    options = parser.parse_args(arguments)
    net = SMALL if options.smoke else cifar()
    turns = 2 if options.smoke else options.turns
    num_configurations = 2**net.depth
    print(f"One step over all {num_configurations} configurations, as a multiple of one plain step; d = {net.depth}.")
    print("sharing  batch threads   tree  floor committed  memory  plain step")
    results = []
    before = torch.get_num_threads()
    try:
        for threads in options.threads:
            torch.set_num_threads(threads)
            for batch in options.batch:
                for name in options.sharing:
                    result = measure(net, SHARINGS[name](), batch=batch, turns=turns, steps=options.steps)
                    results.append(result)
                    print(
                        f"{name:<8} {batch:>5} {threads:>7} {result.tree:>6.2f} {result.floor:>6.2f} "
                        f"{result.committed:>9.2f} {result.memory:>7.2f}  {1000 * result.plain_seconds:.1f} ms",
                        flush=True,
                    )
    finally:
        torch.set_num_threads(before)
    return results


if __name__ == "__main__":
    main()
