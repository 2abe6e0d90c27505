"""WSN's masks and gradients against naive ones, and that nothing is forgotten."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from learner.fixture import GREY, tiny_net, tiny_task
from torch import Tensor

from lasem.errors import ConfigError
from lasem.learner import Learner
from lasem.methods import WSN, Model, Setup
from lasem.methods.plain import run
from lasem.methods.wsn import best_scored, frozen, kernels, subnetwork
from lasem.training import Step, TrainingConfig

SLOW = TrainingConfig(epochs=3, batch_size=5, learning_rate=0.005)
"""Keeps units alive with every optimiser."""
CPU = torch.device("cpu")
NET = tiny_net(linear=(5,))
QUICK = TrainingConfig(epochs=3, batch_size=5, learning_rate=0.02)
KERNELS = ("layer.0.weight", "layer.1.weight", "layer.2.weight")


def setup_of(index: int = 0) -> Setup:
    return Setup(NET, QUICK, CPU, seed=3, index=index)


def naive_mask(scores: Tensor, num: int) -> Tensor:
    order = sorted(range(scores.numel()), key=lambda i: (-scores.flatten()[i].item(), i))
    mask = torch.zeros(scores.numel(), dtype=torch.bool)
    mask[order[:num]] = True
    return mask.view(scores.shape)


@pytest.mark.parametrize("capacity", [0.01, 0.07, 0.3, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("shape", [(1,), (10, 10), (4, 3, 2, 2), (7, 5)])
def test_the_mask_is_that_of_a_sort(capacity: float, shape: tuple[int, ...]) -> None:
    num = -(-round(capacity * 1000) * math.prod(shape) // 1000)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        scores = torch.randn(shape, generator=generator)
        tied = torch.randint(-1, 2, shape, generator=generator).float()
        for s in (scores, tied, torch.zeros(shape)):
            mask = best_scored(s, capacity)
            assert int(mask.sum()) == num
            assert torch.equal(mask, naive_mask(s, num))


def test_gradients_go_straight_through_the_mask() -> None:
    weights = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    scores = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    outer = torch.randn(4, 3, dtype=torch.float64)
    mask = naive_mask(scores, 6)
    out = subnetwork(weights, scores, 0.5)
    for place in product(range(4), range(3)):
        assert out[place].item() == (weights[place].item() if mask[place] else 0)
    (out * outer).sum().backward()  # type: ignore[no-untyped-call]
    assert weights.grad is not None
    assert scores.grad is not None
    for place in product(range(4), range(3)):
        assert weights.grad[place].item() == (outer[place].item() if mask[place] else 0)
        assert scores.grad[place].item() == pytest.approx(outer[place].item() * weights[place].item())


def test_every_kernel_has_scores_and_no_bias_has() -> None:
    assert kernels(NET) == {"layer.0.weight": (3, 1, 3, 3), "layer.1.weight": (4, 3, 2, 2), "layer.2.weight": (5, 36)}


def test_what_a_task_owns() -> None:
    learner = Learner(NET, WSN(capacity=0.3), training=QUICK)
    learner.learn(tiny_task("a", 3))
    model = learner.model
    biases = {f"layer.{i}.bias" for i in range(3)}
    head = {f"head.{name}" for name in NET.head.shapes(3)}
    assert set(model.own["a"]) == {f"mask.{name}" for name in KERNELS} | biases | head
    assert set(model.shared) == set(KERNELS)
    assert set(model.memory) == {f"score.{name}" for name in KERNELS}
    for name in KERNELS:
        mask = model.own["a"][f"mask.{name}"]
        assert mask.dtype == torch.bool
        assert torch.equal(mask, naive_mask(model.memory[f"score.{name}"], math.ceil(0.3 * mask.numel())))
    plain = sum(math.prod(shape) for shape in NET.head.shapes(3).values()) + 3 + 4 + 5
    assert learner.num_parameters("a") == plain + -(-27 // 32) + -(-48 // 32) + -(-180 // 32)
    assert learner.num_parameters() == learner.num_parameters("a") + 27 + 48 + 180


def test_a_task_answers_with_its_masked_weights() -> None:
    learner = Learner(NET, WSN(capacity=0.4), training=QUICK)
    learner.learn(tiny_task("a"))
    shared, own = learner.model.shared, learner.model.own["a"]
    weights = {**own, **{name: shared[name] * own[f"mask.{name}"] for name in KERNELS}}
    x = torch.randn(3, *GREY)
    assert torch.equal(WSN().logits(NET, learner.model, "a", x), run(NET, weights, x))


def test_frozen_weights_are_those_of_any_earlier_task() -> None:
    learner = Learner(NET, WSN(capacity=0.3, score_rate=5), training=SLOW)
    assert frozen(Model()) == {}
    for k in range(3):
        learner.learn(tiny_task(f"t{k}", seed=k))
    union = frozen(learner.model)
    grown = 0
    for name in KERNELS:
        masks = [own[f"mask.{name}"].flatten().tolist() for own in learner.model.own.values()]
        assert union[name].flatten().tolist() == [any(entry) for entry in zip(*masks, strict=True)]
        grown += sum(union[name].flatten().tolist()) - sum(masks[0])
    assert grown > 0


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd", "rmsprop", "rmsprop-tf"])
def test_earlier_tasks_stay_as_they_are_to_the_bit(optimiser: str) -> None:
    training = replace(SLOW, optimiser=optimiser)
    learner = Learner(NET, WSN(score_rate=5), training=training)
    x = torch.randn(4, *GREY)
    answers: dict[str, Tensor] = {}
    num_moved = 0
    for k in range(3):
        before, fixed = learner.model.shared, frozen(learner.model)
        copies = {name: value.clone() for name, value in before.items()}
        learner.learn(tiny_task(f"t{k}", 2 + k, seed=k))
        for name in before:
            assert torch.equal(before[name], copies[name])  # the given model is as it was
            moved = learner.model.shared[name] != copies[name]
            assert not bool(moved[fixed[name]].any())
            num_moved += int(moved.sum())
        for name, answer in answers.items():
            assert torch.equal(WSN().logits(NET, learner.model, name, x), answer)
        answers[f"t{k}"] = WSN().logits(NET, learner.model, f"t{k}", x)
    assert num_moved > 0, "what no earlier task uses goes on learning"


def test_only_scores_and_own_parts_move_when_all_weights_are_frozen() -> None:
    learner = Learner(NET, WSN(capacity=1.0), training=QUICK)
    learner.learn(tiny_task("a"))
    first = learner.model
    learner.learn(tiny_task("b", seed=1))
    for name in KERNELS:
        assert torch.equal(learner.model.shared[name], first.shared[name])
        assert not torch.equal(learner.model.memory[f"score.{name}"], first.memory[f"score.{name}"])
    assert not torch.equal(learner.model.own["b"]["layer.0.bias"], first.own["a"]["layer.0.bias"])


def test_gradients_of_frozen_weights_vanish_and_no_others() -> None:
    learner = Learner(NET, WSN(), training=QUICK, seed=3)
    learner.learn(tiny_task("a"))
    phase = next(WSN().plan(learner.model, tiny_task("b", seed=1), setup_of(1)))
    weights = {k: v.clone().requires_grad_() for k, v in phase.initial().items()}
    for weight in weights.values():
        weight.grad = torch.ones_like(weight)
    phase.change_gradients(weights, Step(0, 0, 2, 0.1))
    for name, weight in weights.items():
        assert weight.grad is not None
        expected = torch.ones_like(weight)
        if name in KERNELS:
            expected[learner.model.own["a"][f"mask.{name}"]] = 0
        assert torch.equal(weight.grad, expected), name


def test_a_new_task_begins_with_the_last_ones_scores_and_fresh_biases() -> None:
    method = WSN(score_rate=7)
    learner = Learner(NET, method, training=QUICK, seed=3)
    first = next(method.plan(Model(), tiny_task("a"), setup_of()))
    learner.learn(tiny_task("a"))
    second = next(method.plan(learner.model, tiny_task("b"), setup_of(1)))
    for name, start in second.initial().items():
        if name.startswith("score."):
            assert torch.equal(start, learner.model.memory[name])
            assert not torch.equal(start, first.initial()[name])
            assert second.scale((name,)) == 7
        else:
            assert second.scale((name,)) == 1
        if name in KERNELS:
            assert torch.equal(start, learner.model.shared[name])
        if name.endswith("bias"):
            assert not bool(start.any())
    for name in KERNELS:
        score = first.initial()[f"score.{name}"]
        bound = 1 / math.sqrt(math.prod(score.shape[1:]))
        assert 0.5 * bound < float(score.abs().max()) <= bound


def test_settings_that_it_cannot_use_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"weight_decay=0; got 0\.1"):
        Learner(NET, WSN(), training=TrainingConfig(weight_decay=0.1))
    for wrong in ({"capacity": 0.0}, {"capacity": 1.1}, {"score_rate": 0.0}):
        (name,) = wrong
        with pytest.raises(ConfigError, match=f"WSN.{name} must be"):
            WSN(**wrong)
