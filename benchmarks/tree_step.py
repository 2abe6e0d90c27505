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

Run ``python benchmarks/tree_step.py`` on an idle machine; ``--smoke`` takes seconds and measures nothing of use. All
other costs are measured by ``lasem bench``, with the same means.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch

from benchmarks.arithmetic import arithmetic_floor, leaf_activation_bytes
from benchmarks.making import WHOLE_TREE, make_loop, make_task, peak_bytes, ratio, take_turns
from lasem.experiments.runner import cpu_threads
from lasem.nets import Net, cifar
from lasem.search import Fixed
from lasem.sharing import SHARINGS, AbstractSharing

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


def measure(net: Net, sharing: AbstractSharing, *, batch: int, turns: int, steps: int, num_classes: int = 10) -> Result:
    """Let the three kinds of step take turns; then one tree step under the eyes of ``PeakMemory``."""
    task = make_task(net, num_classes, batch * steps)
    searches = {"plain": Fixed("none"), "committed": Fixed("all"), "tree": WHOLE_TREE}
    loops = {name: make_loop(net, sharing, search, task, batch) for name, search in searches.items()}
    seconds = take_turns(loops, turns)
    one = make_loop(net, sharing, WHOLE_TREE, make_task(net, num_classes, batch), batch)
    return Result(
        sharing=sharing.name,
        batch=batch,
        threads=torch.get_num_threads(),
        tree=ratio(seconds["tree"], seconds["plain"]),
        floor=arithmetic_floor(net, num_classes),
        committed=ratio(seconds["committed"], seconds["plain"]),
        memory=peak_bytes(one) / leaf_activation_bytes(net, batch),
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
    for threads in options.threads:
        with cpu_threads(threads):
            for batch in options.batch:
                for name in options.sharing:
                    result = measure(net, SHARINGS[name](), batch=batch, turns=turns, steps=options.steps)
                    results.append(result)
                    print(
                        f"{name:<8} {batch:>5} {threads:>7} {result.tree:>6.2f} {result.floor:>6.2f} "
                        f"{result.committed:>9.2f} {result.memory:>7.2f}  {1000 * result.plain_seconds:.1f} ms",
                        flush=True,
                    )
    return results


if __name__ == "__main__":
    main()
