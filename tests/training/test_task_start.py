from __future__ import annotations

import pytest
import torch
from learner.fixture import tiny_net, tiny_task

from lasem.sharing import Deconvolution
from lasem.space import full
from lasem.training import SharedProtection, TaskStart, TrainingConfig
from lasem.tree import Path

from .fixture import random_weights


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (("head", "weight.0"), 1.0),
        (("layers", 0, "specific", "weight"), 1.0),
        (("layers", 0, "specific", "knowledge"), 1.0),
        (("layers", 1, "shared", "inner.specific.knowledge"), 0.1),  # a module may call a part of its own like that
        (("layers", 0, "shared", "knowledge"), 0.0),  # only read
        (("layers", 0, "factors", "combine"), 1.0),
        (("layers", 1, "statistics", "T", "norm.running_mean"), 0.0),
    ],
)
def test_step_sizes_go_by_the_part_that_a_weight_belongs_to(path: Path, expected: float) -> None:
    net, sharing, space, task = tiny_net(), Deconvolution(step_scale=0.1), full(2), tiny_task()
    weights = random_weights(net, sharing, tuple(space), 2, torch.float32)
    protection = SharedProtection(read_only=frozenset({0}))
    start = TaskStart(
        net, sharing, TrainingConfig(), task, space, weights, {}, torch.device("cpu"), protection=protection
    )
    assert start.scale(path) == expected
