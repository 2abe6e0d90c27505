from __future__ import annotations

import torch

from lasem.nets import ConvBlock
from lasem.sharing import HardSharing


def test_a_transferred_layer_is_the_shared_one_and_a_task_owns_nothing_of_it() -> None:
    block, sharing = ConvBlock(2, 3, 3), HardSharing()
    plain = block.initial(torch.Generator().manual_seed(0), "he")
    shared = sharing.initial_shared(block, plain, torch.Generator())
    made = sharing.weights(block, shared, {})
    assert all(torch.equal(shared[k], plain[k]) for k in plain)
    assert all(made[k] is shared[k] for k in plain)
    assert sharing.initial_task(block, shared, plain, torch.Generator()) == sharing.task_shapes(block) == {}
    assert sharing.penalty(block, {}) is None
    assert sharing.num_shared(block) == sharing.num_owned(block, transferred=False) == 2 * 3 * 9 + 3
    assert sharing.num_owned(block, transferred=True) == 0
