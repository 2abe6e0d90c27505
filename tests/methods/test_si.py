"""Omega, importances and loss against a training by hand in float64."""

from typing import Any

import pytest
import torch
from learner.fixture import tiny_net, tiny_task
from torch import Tensor

from lasem import TrainingConfig
from lasem.methods import SI, Learned, Model
from lasem.methods.plain import run
from lasem.training import Step
from methods.fixture import CPU, learner_of, result_of, seeded, setup_of

NET = tiny_net(dropout=0.0)
RATE = 0.1


def doubled(tensors: Any) -> dict[str, Tensor]:
    return {name: value.double().clone() for name, value in tensors.items()}


def followed_by_hand(method: SI, model: Model, index: int, terms: list[Any]) -> Learned:
    """One task's steps through the phase's hooks, checked against their definitions; the plan's result.

    ``terms`` holds omega, the weights before and those after each task so far, and gets those of this one.
    """
    plan = method.plan(model, tiny_task(f"t{index}", 2 + index, seed=index), setup_of(NET, index))
    phase = next(plan)
    weights = doubled(phase.initial())
    layers = [name for name in weights if name.startswith("layer.")]
    moving = [name for name in weights if not name.startswith("path.")]
    assert {name for name in weights if phase.scale((name,)) == 0} == {f"path.{name}" for name in layers}
    start = {name: weights[name].clone() for name in layers}
    omega = {name: torch.zeros_like(value) for name, value in start.items()}
    importance = {name: torch.zeros_like(value) for name, value in start.items()}
    for path, before, after in terms:
        for name in layers:
            added = path[name] / ((after[name] - before[name]) ** 2 + method.damping)
            importance[name] = (importance[name] + added).clamp(min=0)
    for number, batch in enumerate(phase.batches(CPU, seeded(index))):
        batch = batch._replace(x=batch.x.double())
        for name in moving:
            weights[name] = weights[name].detach().requires_grad_()
        cross_entropy = torch.nn.functional.cross_entropy(run(NET, weights, batch.x), batch.labels)
        alone = torch.autograd.grad(cross_entropy, [weights[name] for name in layers])
        penalty = sum((importance[n] * (weights[n] - terms[-1][2][n]) ** 2).sum().item() for n in layers if terms)
        loss = phase.loss(weights, batch, torch.Generator())
        assert loss.item() == pytest.approx(cross_entropy.item() + method.strength * penalty, rel=1e-6)
        loss.backward()
        step = Step(0, number, 2, RATE)
        phase.change_gradients(weights, step)
        with torch.no_grad():
            for name in moving:
                weights[name] -= RATE * weights[name].grad  # type: ignore[operator]
            for name, gradient in zip(layers, alone, strict=True):
                omega[name] += gradient * RATE * weights[name].grad  # type: ignore[operator]
            phase.after_step(weights, step)
    for name in layers:
        torch.testing.assert_close(weights[f"path.{name}"], omega[name], rtol=1e-4, atol=1e-8)
    end = {name: value.detach() for name, value in weights.items()}
    terms.append((omega, start, end))
    with pytest.raises(StopIteration) as stop:
        plan.send(result_of(phase, end))
    return stop.value.value


def test_omega_importances_and_loss_are_their_definitions() -> None:
    method, model, terms = SI(strength=5.0, damping=0.01), Model(), []
    for index in range(3):
        model = followed_by_hand(method, model, index, terms).model
    assert {name for name in model.own["t1"]} == {f"head.{name}" for name in NET.head.shapes(3)}
    path, before, after = terms[-1]
    assert all(torch.equal(model.memory[f"anchor.{name}"], after[name]) for name in before)
    assert any(float(value.min()) < 0 for value in path.values())  # so that the bound is tried
    assert all(bool((model.memory[f"importance.{name}"] >= 0).all()) for name in before)


def test_omega_is_of_the_epoch_that_is_kept() -> None:
    """With few images the best epoch is not always the last one: what is kept is as if training had ended there."""
    task, plain = tiny_task("a", 3), {"batch_size": 5, "learning_rate": 0.03, "schedule": "constant", "tolerance": 0.0}
    learner = learner_of(SI(), NET, training=TrainingConfig(epochs=8, **plain))
    epoch = learner.learn(task).best_epoch
    assert epoch < 8
    shorter = learner_of(SI(), NET, training=TrainingConfig(epochs=epoch, restore_best=False, **plain))
    shorter.learn(task)
    assert all(torch.equal(value, shorter.model.memory[name]) for name, value in learner.model.memory.items())
