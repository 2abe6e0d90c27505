from __future__ import annotations

import torch
from learner.fixture import SHARINGS, assert_same_tensors, tiny_net

from lasem.sharing import Deconvolution
from lasem.space import full, listed
from lasem.training import TaskWeights
from lasem.training.task_weights import step_of

from .fixture import random_weights


def test_names_and_back() -> None:
    for sharing in SHARINGS:
        for space in (full(3), listed(["TST"])):
            weights = random_weights(tiny_net(depth=2, linear=(3,)), sharing, tuple(space), 2, torch.float32)
            flat = weights.named()
            again = TaskWeights.from_named(flat, 3)
            assert list(again.named()) == list(flat)
            assert all(again.named()[name] is value for name, value in flat.items())
            assert [id(t) for t in weights] == [id(t) for t in flat.values()]
            assert len(again.layers) == 3


def test_a_copy_is_detached_and_apart() -> None:
    weights = random_weights(tiny_net(), SHARINGS[0], tuple(full(2)), 2, torch.float64).copy(requires_grad=True)
    assert all(t.requires_grad and t.is_leaf and t.dtype == torch.float64 for t in weights)
    before = weights.copy()
    assert_same_tensors(before.named(), weights.copy().named())
    with torch.no_grad():
        for t in weights:
            t.add_(1)
    assert all(not torch.equal(a, b) and not a.requires_grad for a, b in zip(before, weights, strict=True))


def test_step_sizes_go_by_the_part_that_a_weight_belongs_to() -> None:
    sharing = Deconvolution(step_scale=0.1)
    for name, expected in (
        ("head.weight.0", 1.0),
        ("layer.0.specific.weight", 1.0),
        ("layer.0.specific.knowledge", 1.0),
        ("layer.3.shared.inner.specific.knowledge", 0.1),  # a module may call a part of its own like that
        ("layer.3.factors.combine", 1.0),
        ("layer.3.statistics.T.norm.running_mean", 0.0),
    ):
        assert step_of(sharing, name) == expected
