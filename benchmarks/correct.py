"""That the fast paths which are timed compute what the slow ones do; the only way in which a benchmark can fail."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.making import NUM_CLASSES, WHOLE_TREE, make_loop, make_task
from benchmarks.row import Row, Scale, WrongResultError
from lasem.search import DeepEM, Mixture, evaluate
from lasem.sharing import SHARINGS
from lasem.space import full

_TOLERANCE = 1e-4
"""Between float32 results that were added up in another order, relative to the largest."""


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
        together = evaluate(Mixture.of(scale.net, sharing, tuple(full(scale.net.depth))), weights, x)
        alone = torch.cat([evaluate(Mixture.of(scale.net, sharing, (c,)), weights, x) for c in full(scale.net.depth)])
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
    expected = torch.softmax(search.prior(state).log() + evidence.sum(dim=1), dim=0)
    bits = torch.tensor([c.bits for c in full(4)], dtype=torch.float64)
    gap = max(_gap(weights, expected), _gap(after.mass[:, 1] - state.mass[:, 1], expected @ bits))
    _check(gap, "deep EM with all configurations and the whole sum")
    return gap


def _gap(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max().clamp_min(torch.finfo(other.dtype).tiny))


def _check(gap: float, what: str) -> None:
    if not gap <= _TOLERANCE:
        raise WrongResultError(f"Expected the same from {what}; they differ by {gap:.2g} of the largest value.")
