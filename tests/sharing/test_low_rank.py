from __future__ import annotations

from typing import Any

import pytest
import torch
from learner.fixture import tiny_net, tiny_task
from nets.modules import normalised, seeded
from torch import Tensor

from lasem.errors import ConfigError
from lasem.learner import Learner
from lasem.nets import ConvBlock, LinearBlock, cut
from lasem.search import Fixed
from lasem.sharing import LowRank
from lasem.training import TrainingConfig

QUICK = TrainingConfig(epochs=2, batch_size=5)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {k: torch.randn(s, dtype=torch.float64, generator=generator(n)) for n, (k, s) in enumerate(shapes.items())}


def test_a_kernel_is_the_shared_one_and_a_sum_of_outer_products() -> None:
    block, sharing = ConvBlock(2, 5, 3), LowRank(rank=3, scale=0.5)
    shared, own = random(sharing.shared_shapes(block)), random(sharing.task_shapes(block))
    assert {name: tuple(value.shape) for name, value in own.items()} == {"change.down": (3, 18), "change.up": (5, 3)}
    made = sharing.weights(block, shared, own)
    for out in range(5):
        for i in range(2):
            for row in range(3):
                for column in range(3):
                    change = sum(
                        own["change.up"][out, r] * own["change.down"][r, i * 9 + row * 3 + column] for r in range(3)
                    )
                    expected = shared["weight"][out, i, row, column] + 0.5 * change
                    torch.testing.assert_close(made["weight"][out, i, row, column], expected)
    assert made["bias"] is shared["bias"]
    assert int(torch.linalg.matrix_rank((made["weight"] - shared["weight"]).flatten(1))) == 3


def test_the_rank_is_at_most_the_smaller_side() -> None:
    assert LowRank(rank=9).task_shapes(LinearBlock(4, 2)) == {"change.down": (2, 4), "change.up": (2, 2)}
    assert LowRank(rank=1).num_owned(LinearBlock(50, 40), transferred=True) == 90


def test_a_task_starts_from_the_shared_layer_and_can_move() -> None:
    block, sharing = LinearBlock(4, 3), LowRank(rank=2)
    plain = block.initial(generator(), "he")
    shared = sharing.initial_shared(block, plain, generator(1))
    own = {
        name: value.requires_grad_() for name, value in sharing.initial_task(block, shared, plain, generator(2)).items()
    }
    made = sharing.weights(block, shared, own)
    assert all(torch.equal(made[name], plain[name]) for name in plain)
    (slope,) = torch.autograd.grad(made["weight"].square().sum(), own["change.up"])
    assert bool((slope != 0).any())


def test_a_block_of_several_kernels_has_a_change_for_each_and_shares_the_rest() -> None:
    block = cut(seeded(normalised), [("0", "1", "4", "5"), ("7", "8")], image_shape=(1, 6, 6)).blocks[0]
    sharing = LowRank(rank=1)
    assert sharing.task_shapes(block) == {
        "0.weight.change.down": (1, 9),
        "0.weight.change.up": (3, 1),
        "4.weight.change.down": (1, 27),
        "4.weight.change.up": (4, 1),
    }
    assert set(sharing.shared_shapes(block)) == {
        *("0.weight.weight", "0.bias", "1.weight", "1.bias", "4.weight.weight", "4.bias", "5.weight", "5.bias")
    }


@pytest.mark.parametrize("trained", [True, False])
def test_shared_weights_are_trained_or_frozen(trained: bool) -> None:
    net = cut(seeded(normalised), image_shape=(1, 6, 6))
    learner = Learner(net, sharing=LowRank(rank=2, train_shared=trained), search=Fixed("all"), training=QUICK)
    learner.learn(tiny_task("a"))
    images = tiny_task("a").test.images.take(torch.arange(6))
    before = learner.logits("a", images)
    learner.learn(tiny_task("b", seed=1))
    assert torch.equal(before, learner.logits("a", images)) is not trained
    changed = {name: bool((value != 0).any()) for name, value in learner._tasks["b"].layers[0].items()}
    assert changed["0.weight.change.up"]


def test_frozen_weights_that_nobody_trained_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"LowRank\.train_shared=False keeps .* at random.*set train_shared to True"):
        Learner(tiny_net(), sharing=LowRank(train_shared=False), training=QUICK)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 0}, r"LowRank\.rank must be at least 1; got 0"),
        ({"scale": 0.0}, r"LowRank\.scale must be above 0"),
        ({"factors_start": "last"}, r"LowRank\.factors_start must be one of fresh, latest"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LowRank(**change)
