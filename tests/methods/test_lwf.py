"""The loss, the phases and what they train against the definitions, in float64."""

from typing import Any

import pytest
import torch
from learner.fixture import tiny_net, tiny_task
from torch import Tensor

from lasem import TrainingConfig
from lasem.methods import LwF, Model
from lasem.methods.model import prefixed
from lasem.methods.penalties import distillation
from lasem.methods.plain import run
from lasem.training import AbstractPhase
from methods.fixture import batch_of, drive, learner_of, naive_cross_entropy, noise, result_of, seeded, setup_of

NET = tiny_net(dropout=0.0)
QUICK = TrainingConfig(epochs=8, batch_size=5, learning_rate=0.01)


def naive_distillation(before: list[float], now: list[float], temperature: float) -> float:
    """Equations 2 and 3, from probabilities."""

    def softened(logits: list[float]) -> list[float]:
        exponentials = torch.tensor(logits, dtype=torch.float64).exp()
        powers = ((exponentials / exponentials.sum()) ** (1 / temperature)).tolist()
        return [power / sum(powers) for power in powers]

    pairs = zip(softened(before), softened(now), strict=True)
    return -sum(y * float(torch.tensor(z, dtype=torch.float64).log()) for y, z in pairs)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_the_distillation_is_its_definition(temperature: float) -> None:
    now, before = (3 * torch.randn(4, 3, generator=seeded(seed)) for seed in (0, 1))
    expected = [naive_distillation(*rows, temperature) for rows in zip(before.tolist(), now.tolist(), strict=True)]
    torch.testing.assert_close(distillation(now, before, temperature), torch.tensor(expected), rtol=1e-5, atol=1e-6)
    bound = distillation(before, before, temperature)  # the least that any answer comes to
    assert bool((distillation(now, before, temperature) > bound).all())


def phases_of(method: LwF, num_tasks: int, net: Any = NET) -> tuple[Model, list[AbstractPhase]]:
    """The model before the last task, and this one's phases, all of which end in noise around their start."""
    model = Model()
    for k in range(num_tasks):
        before, task = model, tiny_task(f"t{k}", 2 + k, seed=k)
        plan = method.plan(model, task, setup_of(net, k, QUICK))
        learned, phases = drive(plan, lambda phase: result_of(phase, noise(phase.initial(), 5)))
        model = learned.model
    return before, phases


def test_the_head_is_trained_alone_and_then_everything() -> None:
    _, (only,) = phases_of(LwF(), 1)
    assert (only.title, only.config.epochs) == ("", 8)
    model, (warm_up, last) = phases_of(LwF(warmup_share=0.4), 3)
    assert [(phase.title, phase.config.epochs) for phase in (warm_up, last)] == [("head", 3), ("last", 5)]
    assert set(warm_up.initial()) == {f"head.{name}" for name in NET.head.shapes(4)}
    expected = dict(model.shared)
    for k, own in enumerate([*model.own.values(), noise(warm_up.initial(), 5)]):
        expected |= prefixed(f"task.{k}", own)
    assert expected.keys() == last.initial().keys()
    assert all(torch.equal(value, expected[name]) for name, value in last.initial().items())
    batch = batch_of(warm_up)
    logits = run(NET, {**model.shared, **warm_up.initial()}, batch.x)
    expected_loss = naive_cross_entropy(logits, batch.labels)
    assert warm_up.loss(warm_up.initial(), batch, seeded()).item() == pytest.approx(expected_loss, rel=1e-5)


def test_the_loss_is_of_labels_and_of_what_every_earlier_head_answered() -> None:
    method = LwF(strength=0.7, temperature=3.0)
    model, (_, phase) = phases_of(method, 3)
    batch = batch_of(phase, double=True)
    weights = {name: value.double().requires_grad_() for name, value in noise(phase.initial(), 9).items()}
    layers = {name: value for name, value in weights.items() if name.startswith("layer.")}

    def now(k: int) -> Tensor:
        head = {name.removeprefix(f"task.{k}."): v for name, v in weights.items() if name.startswith(f"task.{k}.")}
        return run(NET, {**layers, **head}, batch.x).detach()

    expected = naive_cross_entropy(now(2), batch.labels)
    for k, own in enumerate(model.own.values()):
        before = run(NET, {name: value.double() for name, value in {**model.shared, **own}.items()}, batch.x)
        rows = [naive_distillation(*pair, 3.0) for pair in zip(before.tolist(), now(k).tolist(), strict=True)]
        expected += 0.7 * sum(rows) / len(rows)
    start = {name: value.double() for name, value in phase.initial().items()}
    phase.start = start  # type: ignore[attr-defined]
    loss = phase.loss(weights, batch, seeded())
    assert loss.item() == pytest.approx(expected, rel=1e-6)  # both softened in float32
    loss.backward()
    assert all(value.grad is not None and bool((value.grad != 0).any()) for value in weights.values())
    assert not any(value.requires_grad for value in start.values())


def test_recorded_answers_have_no_dropout_and_those_of_now_have() -> None:
    """At the start both networks are one: without dropout the answers of before are at the least distance from it."""
    net = tiny_net(dropout=0.5)
    model, (_, phase) = phases_of(LwF(), 2, net)
    batch, weights = batch_of(phase), phase.initial()
    losses = [float(phase.loss(weights, batch, seeded(seed))) for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
    generator, expected = seeded(1), 0.0
    for k, own in enumerate([*model.own.values(), {n.removeprefix("task.1."): v for n, v in weights.items()}]):
        logits = run(net, {**model.shared, **own}, batch.x, dropout=generator)
        plain = run(net, {**model.shared, **own}, batch.x)
        expected += naive_cross_entropy(logits, batch.labels) if k else float(distillation(logits, plain, 2.0).mean())
    assert losses[0] == pytest.approx(expected, rel=1e-5)


def test_earlier_answers_to_the_new_images_move_less_than_without_distillation() -> None:
    training, task = TrainingConfig(epochs=20, batch_size=5, learning_rate=0.01), tiny_task("t1", 3, seed=1)
    moved, (images, _) = [], next(task.train.batches(10))
    for strength in (0.0, 3.0):
        learner = learner_of(LwF(strength=strength), NET, 1, training=training)
        before = LwF().logits(NET, learner.model, "t0", images).softmax(dim=1)
        learner.learn(task)
        moved.append(float((LwF().logits(NET, learner.model, "t0", images).softmax(dim=1) - before).norm()))
    assert moved[0] > 2 * moved[1]
