import pytest
import torch
from learner.fixture import tiny_task
from nets.modules import SHAPE, normalised, seeded

from lasem import Fixed, Learner, LowRank, TrainingConfig
from lasem.nets import ConvBlock, LinearBlock, cut

from .fixture import random, shapes_of, start


def test_a_kernel_is_the_shared_one_and_a_sum_of_outer_products() -> None:
    block, sharing = ConvBlock(2, 5, 3), LowRank(rank=3, scale=0.5)
    shared, own = random(sharing.shared_shapes(block)), random(sharing.task_shapes(block))
    assert shapes_of(own) == {"change.down": (3, 18), "change.up": (5, 3)}
    made = sharing.weights(block, shared, own)
    change = torch.stack([torch.outer(own["change.up"][:, r], own["change.down"][r]) for r in range(3)]).sum(dim=0)
    torch.testing.assert_close(made["weight"], shared["weight"] + 0.5 * change.reshape(5, 2, 3, 3))
    assert made["bias"] is shared["bias"]
    assert int(torch.linalg.matrix_rank((made["weight"] - shared["weight"]).flatten(1))) == 3


def test_the_rank_is_at_most_the_smaller_side() -> None:
    assert LowRank(rank=9).task_shapes(LinearBlock(4, 2)) == {"change.down": (2, 4), "change.up": (2, 2)}
    assert LowRank(rank=1).num_owned(LinearBlock(50, 40), transferred=True) == 90


def test_a_task_starts_from_the_shared_layer_and_can_move() -> None:
    block, sharing = LinearBlock(4, 3), LowRank(rank=2)
    plain, shared, own, made = start(sharing, block)
    assert all(torch.equal(made[name], plain[name]) for name in plain)
    weight = sharing.weights(block, shared, {k: v.requires_grad_() for k, v in own.items()})["weight"]
    (slope,) = torch.autograd.grad(weight.square().sum(), own["change.up"])
    assert bool((slope != 0).any())


def test_a_block_of_several_kernels_has_a_change_for_each_and_shares_the_rest() -> None:
    block = cut(seeded(normalised), [("0", "1", "4", "5"), ("7", "8")], image_shape=SHAPE).blocks[0]
    _, shared, own, _ = start(LowRank(rank=1), block)
    changes = {"0.weight.change.down": (1, 9), "0.weight.change.up": (3, 1)}
    assert shapes_of(own) == changes | {"4.weight.change.down": (1, 27), "4.weight.change.up": (4, 1)}
    rest = {f"{layer}.bias" for layer in "0145"} | {"1.weight", "5.weight"}
    assert set(shared) == rest | {"0.weight.weight", "4.weight.weight"}


@pytest.mark.parametrize("trained", [True, False])
def test_shared_weights_are_trained_or_frozen(trained: bool) -> None:
    net, training = cut(seeded(normalised), image_shape=SHAPE), TrainingConfig(epochs=2, batch_size=5)
    learner = Learner(net, sharing=LowRank(rank=2, train_shared=trained), search=Fixed("all"), training=training)
    learner.learn(tiny_task("a"))
    images = tiny_task("a").test.images.take(torch.arange(6))
    before = learner.logits("a", images)
    learner.learn(tiny_task("b", seed=1))
    assert torch.equal(before, learner.logits("a", images)) is not trained
    assert bool(learner.model.own["b"]["layer.0.0.weight.change.up"].any())
