"""WSN's masks and gradients against naive ones."""

import math
from itertools import product

import pytest
import torch
from learner.fixture import GREY, tiny_net, tiny_task
from torch import Tensor

from lasem.methods import WSN, Model
from lasem.methods.masks import best_scored, frozen, kernels, subnetwork
from lasem.methods.plain import run
from lasem.training import Step, TrainingConfig
from methods.fixture import learner_of, setup_of

NET = tiny_net(linear=(5,))
QUICK = TrainingConfig(epochs=3, batch_size=5, learning_rate=0.02)
KERNELS = {"layer.0.weight": (3, 1, 3, 3), "layer.1.weight": (4, 3, 2, 2), "layer.2.weight": (5, 36)}


def naive_mask(scores: Tensor, num: int) -> Tensor:
    order = sorted(range(scores.numel()), key=lambda i: (-scores.flatten()[i].item(), i))
    mask = torch.zeros(scores.numel(), dtype=torch.bool)
    mask[order[:num]] = True
    return mask.view(scores.shape)


@pytest.mark.parametrize("capacity", [1e-300, 0.01, 0.07, 0.3, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("shape", [(1,), (10, 10), (4, 3, 2, 2), (7, 5)])
def test_the_mask_is_that_of_a_sort(capacity: float, shape: tuple[int, ...]) -> None:
    num = max(1, -(-round(capacity * 1000) * math.prod(shape) // 1000))
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        scores = torch.randn(shape, generator=generator)
        tied = torch.randint(-1, 2, shape, generator=generator).float()
        for s in (scores, tied, torch.zeros(shape)):
            mask = best_scored(s, capacity)
            assert int(mask.sum()) == num
            assert torch.equal(mask, naive_mask(s, num))


def test_gradients_go_straight_through_the_mask() -> None:
    weights, scores = (torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    outer, mask = torch.randn(4, 3, dtype=torch.float64), naive_mask(scores, 6)
    out = subnetwork(weights, scores, 0.5)
    of_weights, of_scores = torch.autograd.grad((out * outer).sum(), (weights, scores))
    for place in product(range(4), range(3)):
        assert out[place].item() == (weights[place].item() if mask[place] else 0)
        assert of_weights[place].item() == (outer[place].item() if mask[place] else 0)
        assert of_scores[place].item() == pytest.approx(outer[place].item() * weights[place].item())


def test_a_task_owns_masks_biases_and_a_head_and_answers_with_masked_weights() -> None:
    learner = learner_of(WSN(capacity=0.3), NET, training=QUICK)
    learner.learn(tiny_task("a", 3))
    shared, own, memory = learner.model.shared, learner.model.own["a"], learner.model.memory
    head = {f"head.{name}" for name in NET.head.shapes(3)}
    assert set(own) == {f"mask.{name}" for name in KERNELS} | {f"layer.{i}.bias" for i in range(3)} | head
    assert set(memory) == {f"score.{name}" for name in KERNELS}  # no bias has scores
    assert kernels(NET) == {name: tuple(value.shape) for name, value in shared.items()} == KERNELS
    for name in KERNELS:
        mask = own[f"mask.{name}"]
        assert mask.dtype == torch.bool
        assert torch.equal(mask, naive_mask(memory[f"score.{name}"], math.ceil(0.3 * mask.numel())))
    x = torch.randn(3, *GREY)
    weights = {**own, **{name: shared[name] * own[f"mask.{name}"] for name in KERNELS}}
    assert torch.equal(WSN().logits(NET, learner.model, "a", x), run(NET, weights, x))


def test_frozen_weights_are_those_of_any_earlier_task_and_never_move() -> None:
    training = TrainingConfig(epochs=3, batch_size=5, learning_rate=0.005)  # units stay alive
    learner = learner_of(WSN(capacity=0.3, score_rate=5), NET, training=training, seed=0)
    assert frozen(Model()) == {}
    num_moved = grown = 0
    for k in range(3):
        before, fixed = learner.model.shared, frozen(learner.model)
        learner.learn(tiny_task(f"t{k}", seed=k))
        for name in before:
            moved = learner.model.shared[name] != before[name]
            assert not bool(moved[fixed[name]].any())
            num_moved += int(moved.sum())
    assert num_moved > 0, "what no earlier task uses goes on learning"
    for name, union in frozen(learner.model).items():
        masks = [own[f"mask.{name}"].flatten().tolist() for own in learner.model.own.values()]
        assert union.flatten().tolist() == [any(entry) for entry in zip(*masks, strict=True)]
        grown += int(union.sum()) - sum(masks[0])
    assert grown > 0


def test_a_new_task_begins_with_the_last_ones_scores_and_fresh_biases() -> None:
    method = WSN(score_rate=7)
    model = learner_of(method, NET, 1, training=QUICK).model
    first = next(method.plan(Model(), tiny_task("a"), setup_of(NET)))
    second = next(method.plan(model, tiny_task("b"), setup_of(NET, 1)))
    weights = {name: value.clone().requires_grad_() for name, value in second.initial().items()}
    for weight in weights.values():
        weight.grad = torch.ones_like(weight)
    second.change_gradients(weights, Step(0, 0, 2, 0.1))
    for name, start in second.initial().items():
        expected = torch.ones_like(start)
        assert second.scale((name,)) == (7 if name.startswith("score.") else 1)
        if name.startswith("score."):
            assert torch.equal(start, model.memory[name])
            assert not torch.equal(start, first.initial()[name])
            bound = 1 / math.sqrt(math.prod(start.shape[1:]))
            assert 0.5 * bound < float(first.initial()[name].abs().max()) <= bound
        if name in KERNELS:
            assert torch.equal(start, model.shared[name])
            expected[model.own["t0"][f"mask.{name}"]] = 0  # frozen weights get no gradient, all others theirs
        if name.endswith("bias"):
            assert not bool(start.any())
        assert torch.equal(weights[name].grad, expected), name  # type: ignore[arg-type]
