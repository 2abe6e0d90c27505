"""What one training step costs, as a multiple of a plain step of the same network on the same mini-batch.

A tree step is what the trainer does with a mini-batch while it searches: the prefix tree's forward pass, the E-step,
the head twice (without and with dropout), the backward pass through the weighted sum, one optimiser step. A plain step
is what it does under ``Fixed("none")``: no shared knowledge, one configuration.

Timing says nothing of a step that computes something else: ``correct`` compares the fast paths with slow ones.
"""

from __future__ import annotations

import statistics
from itertools import product
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import (
    NUM_CLASSES,
    WHOLE_TREE,
    Row,
    Scale,
    WrongResultError,
    arithmetic_floor,
    leaf_activation_bytes,
    make_loop,
    make_task,
    node_activation_bytes,
    peak_bytes,
    ratio,
    take_turns,
)
from lasem.nets import Net
from lasem.search import EM, DeepEM, Fixed, Mixture, MixturePhase, evaluate
from lasem.search.em import of_choices
from lasem.sharing import SHARINGS
from lasem.space import full
from lasem.training import Loop

_TOLERANCE = 1e-4
"""Between float32 results that were added up in another order, relative to the largest."""


def tree(scale: Scale) -> list[Row]:
    """The exact tree, and the step after commitment."""
    rows = []
    for name, batch in product(scale.sharings, scale.batch_sizes):
        net, sharing = scale.net, SHARINGS[name]()
        task = make_task(net, NUM_CLASSES, batch * scale.steps)
        searches = {"plain": Fixed("none"), "committed": Fixed("all"), "tree": WHOLE_TREE}
        loops = {kind: make_loop(net, sharing, s, task, batch, scale.device) for kind, s in searches.items()}
        seconds = take_turns(loops, scale.turns)
        setting = f"{name}, batch {batch}"
        floor = arithmetic_floor(net, NUM_CLASSES)
        one = make_task(net, NUM_CLASSES, batch)
        leaves, nodes = leaf_activation_bytes(net, batch), node_activation_bytes(net, batch, full(net.depth))
        memory = peak_bytes(make_loop(net, sharing, WHOLE_TREE, one, batch, scale.device))
        rows += [
            Row("tree", setting, "tree step / plain step", ratio(seconds["tree"], seconds["plain"]), floor),
            Row("tree", setting, "committed step / plain step", ratio(seconds["committed"], seconds["plain"]), 1.0),
            Row("tree", setting, "peak memory / leaves' activations", memory / leaves, nodes / leaves),
            Row("tree", setting, "plain step, ms", 1000 * statistics.median(seconds["plain"])),
        ]
    return rows


def precision(scale: Scale) -> list[Row]:
    """bfloat16 against float32 where all layers are trained: which is faster depends on the network and the machine."""
    rows = []
    for name, net in ({"the paper's network": scale.net} | scale.default_nets()).items():
        task, size = make_task(net, NUM_CLASSES, scale.batch_sizes[0] * scale.steps), scale.batch_sizes[0]
        loops = {
            kind: make_loop(net, SHARINGS["hps"](), Fixed("none"), task, size, scale.device, precision=kind)
            for kind in ("float32", "bf16")
        }
        seconds = take_turns(loops, scale.turns)
        rows.append(Row("precision", name, "bf16 step / float32 step", ratio(seconds["bf16"], seconds["float32"])))
    return rows


def depth(scale: Scale) -> list[Row]:
    """Deep EM against a plain step of the same narrow network: linear in d, where a tree would be exponential."""
    rows = []
    for layers in scale.depths:
        net = narrow(layers)
        search = DeepEM(first_task="search", commit_probability=2, commit_share=1)
        rows += _against_plain("depth", f"d = {layers}", net, search, scale)
    return rows


def configurations(scale: Scale) -> list[Row]:
    """The exact tree, by the number of its leaves."""
    rows = []
    for layers in scale.listed_depths:
        rows += _against_plain("configurations", f"d = {layers}, {2**layers} leaves", narrow(layers), WHOLE_TREE, scale)
    return rows


def batch(scale: Scale) -> list[Row]:
    """Images a second, by the size of the mini-batch; arithmetic is the plain step's over a tree's multiplications."""
    rows = []
    tree = arithmetic_floor(scale.net, NUM_CLASSES)
    for size in scale.throughput_sizes:
        task = make_task(scale.net, NUM_CLASSES, size * scale.steps)
        loops = {
            kind: make_loop(scale.net, SHARINGS[scale.sharings[0]](), search, task, size, scale.device)
            for kind, search in (("plain", Fixed("none")), ("tree", WHOLE_TREE))
        }
        seconds = take_turns(loops, scale.turns)
        plain, searched = (size / statistics.median(seconds[kind]) for kind in ("plain", "tree"))
        rows += [
            Row("batch", f"batch {size}", "plain step, images a second", plain),
            Row("batch", f"batch {size}", "tree step, images a second", searched, plain / tree),
        ]
    return rows


def narrow(layers: int) -> Net:
    """A network of 8 channels throughout, on images of 8x8."""
    return Net(
        image_shape=(3, 8, 8),
        channels=(8,) * layers,
        kernels=(3,) * layers,
        pools=(2,) + (1,) * (layers - 1),
        hidden=(8,),
    )


def _against_plain(name: str, setting: str, net: Net, search: EM | DeepEM, scale: Scale) -> list[Row]:
    sharing, size = SHARINGS[scale.sharings[0]](), scale.batch_sizes[0]
    task = make_task(net, NUM_CLASSES, size * scale.steps)
    loops: dict[str, Loop[Any]] = {
        "plain": make_loop(net, sharing, Fixed("none"), task, size, scale.device),
        "search": make_loop(net, sharing, search, task, size, scale.device),
    }
    seconds = take_turns(loops, scale.turns)
    one = make_task(net, NUM_CLASSES, size)
    plain, searched = (peak_bytes(make_loop(net, sharing, s, one, size, scale.device)) for s in (Fixed("none"), search))
    phase = loops["search"].phase
    assert isinstance(phase, MixturePhase)
    evaluated = phase.evaluated  # of samples, the latest ones
    stored, of_one = (node_activation_bytes(net, size, chosen) for chosen in (evaluated, evaluated[:1]))
    floor = arithmetic_floor(net, NUM_CLASSES, evaluated)
    return [
        Row(name, setting, "step / plain step", ratio(seconds["search"], seconds["plain"]), floor),
        Row(name, setting, "step, ms", 1000 * statistics.median(seconds["search"])),
        Row(name, setting, "peak memory / plain step's", searched / plain, stored / of_one),
        Row(name, setting, "peak memory, MiB", searched / 2**20, stored / 2**20),
    ]


@torch.backends.cudnn.flags(enabled=True, allow_tf32=False)  # on a GPU, in all bits of float32
def correct(scale: Scale) -> list[Row]:
    """Compare the tree with each configuration alone, and deep EM with the whole sum.

    Raises:
        WrongResultError: if any of them differ.
    """
    rows = []
    for name in scale.sharings:
        sharing = SHARINGS[name]()
        batch = scale.batch_sizes[0]
        task = make_task(scale.net, NUM_CLASSES, 2 * batch)
        loop = make_loop(scale.net, sharing, WHOLE_TREE, task, batch, scale.device, optimiser="sgd")
        loop.run_epoch()
        weights = loop.weights
        x = next(iter(task.train.batches(batch, device=scale.device)))[0]
        together = evaluate(Mixture(scale.net, sharing, tuple(full(scale.net.depth))), weights, x)
        alone = torch.cat([evaluate(Mixture(scale.net, sharing, (c,)), weights, x) for c in full(scale.net.depth)])
        gap = _gap(together, alone)
        _check(gap, f"{name}: the tree's logits and those of each configuration alone")
        rows.append(Row("correct", name, "largest relative gap, tree / each configuration alone", gap))
    rows.append(Row("correct", "prior", "largest gap, deep EM with all configurations / whole sum", _deep_gap()))
    return rows


def _deep_gap() -> float:
    search = DeepEM(num_samples=16)
    state = search.begin_batch(search.init(16), torch.Generator())
    evidence = -torch.rand(16, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weights, after = search.step(state, evidence)
    bits = torch.tensor([c.bits for c in full(4)], dtype=torch.float64)
    prior = of_choices(bits, search.transfer_probability(state)).prod(dim=1)
    expected = torch.softmax(prior.log() + evidence.sum(dim=1), dim=0)
    gap = max(_gap(weights, expected), _gap(after.mass[:, 1] - state.mass[:, 1], expected @ bits))
    _check(gap, "deep EM with all configurations and the whole sum")
    return gap


def _gap(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max().clamp_min(torch.finfo(other.dtype).tiny))


def _check(gap: float, what: str) -> None:
    if not gap <= _TOLERANCE:
        raise WrongResultError(f"Expected the same from {what}; they differ by {gap:.2g} of the largest value.")
