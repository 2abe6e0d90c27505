"""What ``torch.compile`` makes of a step: a network's blocks forward and backward, compiled, against the same as it is.

Only the blocks are compiled, with the weights as arguments: one compiled function then serves every configuration, task
and number of classes. Both take turns, and the ratio is the median over the turns. The first call, which compiles, is
told apart; so is that of a second size of mini-batch, as an epoch's last one may have.

Run ``python benchmarks/compiled_step.py`` on an idle machine. It fails if the gradients differ.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from lasem.experiments.runner import cpu_threads
from lasem.nets import NETS

IMAGE_SHAPE = (3, 32, 32)
Weights = list[dict[str, Tensor]]


@final
@dataclass(frozen=True)
class Result:
    """Of one network and size of mini-batch."""

    net: str
    batch: int
    speed: float
    """Seconds of the step as it is over those of the compiled one."""
    first_seconds: float
    """The first step, which compiles."""
    second_seconds: float
    """The first step with one image less."""
    plain_seconds: float


def measure(name: str, *, batch: int, turns: int, backend: str) -> Result:
    """Compile the blocks of one of ``lasem.nets.NETS`` and let both take turns."""
    net = NETS[name](IMAGE_SHAPE)
    generator = torch.Generator().manual_seed(0)
    weights = [block.initial(generator, "he") for block in net.blocks]
    for value in _tensors(weights):
        value.requires_grad_()
    x = torch.rand(batch, *IMAGE_SHAPE, generator=generator).contiguous(memory_format=torch.channels_last)

    def blocks(weights: Weights, x: Tensor) -> Any:
        for block, own in zip(net.blocks, weights, strict=True):
            x = block.apply(own, x)
        return x

    compiled = torch.compile(blocks, backend=backend)
    first = _step(compiled, weights, x)
    found = [value.grad for value in _tensors(weights)]
    _step(blocks, weights, x)
    torch.testing.assert_close(found, [value.grad for value in _tensors(weights)], rtol=1e-3, atol=1e-5)
    pairs = [(_step(blocks, weights, x), _step(compiled, weights, x)) for _ in range(turns)]
    return Result(
        net=name,
        batch=batch,
        speed=statistics.median(plain / fast for plain, fast in pairs),
        first_seconds=first,
        second_seconds=_step(compiled, weights, x[1:]),
        plain_seconds=statistics.median(plain for plain, _ in pairs),
    )


def _step(blocks: Callable[[Weights, Tensor], Tensor], weights: Weights, x: Tensor) -> float:
    """Seconds of the pass forward and backward; the gradients stay."""
    for value in _tensors(weights):
        value.grad = None
    started = time.perf_counter()
    torch.autograd.backward(blocks(weights, x).square().mean())
    return time.perf_counter() - started


def _tensors(weights: Weights) -> list[Tensor]:
    return [value for own in weights for value in own.values()]


def main(arguments: Sequence[str] | None = None) -> list[Result]:
    """Measure as the command line says, print a line for each, and return them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", nargs="+", choices=list(NETS), default=["cifar", "resnet"])
    parser.add_argument("--batch", type=int, nargs="+", default=[10, 160], help="images in a mini-batch")
    parser.add_argument("--turns", type=int, default=11, help="turns of either kind of step (default: 11)")
    parser.add_argument("--backend", default="inductor", help="of torch.compile; eager compiles nothing")
    options = parser.parse_args(arguments)
    print("net      batch  speed  first step  other batch  plain step")
    results = []
    with cpu_threads(1):
        for name in options.net:
            for batch in options.batch:
                torch.compiler.reset()
                result = measure(name, batch=batch, turns=options.turns, backend=options.backend)
                results.append(result)
                print(
                    f"{name:<8} {batch:>5} {result.speed:>6.2f} {result.first_seconds:>9.1f} s "
                    f"{result.second_seconds:>10.1f} s  {1000 * result.plain_seconds:.1f} ms",
                    flush=True,
                )
    return results


if __name__ == "__main__":
    main()
