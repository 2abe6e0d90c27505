"""PackNet's masks, phases and losses against naive ones."""

import math

import pytest
import torch
from learner.fixture import GREY, tiny_net, tiny_task
from torch import Tensor

from lasem import TrainingConfig
from lasem.methods import Model, PackNet
from lasem.methods.masks import frozen, kernels
from lasem.methods.plain import run
from lasem.training import AbstractPhase, PhaseResult, Step
from methods.fixture import batch_of, drive, learner_of, naive_cross_entropy, noise, result_of, setup_of

NET = tiny_net(linear=(5,), dropout=0.0)
QUICK = TrainingConfig(epochs=6, batch_size=5, learning_rate=0.01)


@pytest.mark.parametrize("pruned", [0.0, 0.1, 0.5, 0.75, 0.99])
@pytest.mark.parametrize("num_fixed", [0, 7, 23, 24])
def test_the_largest_free_weights_are_kept(pruned: float, num_fixed: int) -> None:
    weights = torch.randn(6, 4, generator=torch.Generator().manual_seed(num_fixed))
    fixed = (torch.randperm(24, generator=torch.Generator().manual_seed(1)) < num_fixed).view(6, 4)
    mask = PackNet(pruned=pruned).kept(weights, fixed if num_fixed else None)
    free = [i for i in range(24) if not fixed.flatten()[i]]
    num_kept = len(free) - math.floor(pruned * len(free) + 1e-9)
    largest = sorted(free, key=lambda i: -abs(float(weights.flatten()[i])))[:num_kept]
    expected = [bool(fixed.flatten()[i]) or i in largest for i in range(24)]
    assert mask.flatten().tolist() == expected


def results(method: PackNet, num_tasks: int) -> tuple[list[Model], list[AbstractPhase]]:
    """Models after each task, all phases ending in noise around their start."""
    models, phases = [Model()], []

    def train(phase: AbstractPhase) -> PhaseResult:
        masks = phase.masks  # type: ignore[attr-defined]
        changed = noise(phase.initial(), len(phases))
        stays = {name: mask | ~masks.get(name, ~mask) for name, mask in frozen(models[-1]).items()}
        return result_of(
            phase, {n: torch.where(stays[n], phase.initial()[n], v) if n in stays else v for n, v in changed.items()}
        )

    for k in range(num_tasks):
        plan = method.plan(models[-1], tiny_task(f"t{k}", 2 + k, seed=k), setup_of(NET, k, QUICK))
        learned, of_task = drive(plan, train)
        models.append(learned.model)
        phases += of_task
    return models, phases


def test_each_task_has_two_phases_and_a_share_of_what_is_free() -> None:
    method = PackNet(pruned=0.6, retrain_share=0.3, retrain_rate=0.2)
    models, phases = results(method, 3)
    assert [phase.title for phase in phases] == ["training", "last"] * 3
    assert [phase.config.epochs for phase in phases] == [4, 2] * 3
    assert [phase.config.learning_rate for phase in phases] == pytest.approx([0.01, 0.002] * 3)
    for name, shape in kernels(NET).items():
        free = math.prod(shape)
        for k, model in enumerate(models[1:]):
            free = math.floor(0.6 * free + 1e-9)
            mask = model.own[f"t{k}"][f"mask.{name}"]
            assert mask.dtype == torch.bool
            assert int((~mask).sum()) == free
            if k:
                assert bool((mask | ~models[k].own[f"t{k - 1}"][f"mask.{name}"]).all())  # it holds the one before


def test_the_second_phase_begins_with_the_kept_weights_and_zeros() -> None:
    method = PackNet(pruned=0.5)
    plan = method.plan(Model(), tiny_task("t0"), setup_of(NET))
    first = next(plan)
    assert not first.masks  # type: ignore[attr-defined]
    trained = noise(first.initial(), 3)
    second = plan.send(result_of(first, trained))
    for name, value in second.initial().items():
        expected = trained[name].clone()
        if name in kernels(NET):
            numbers = expected.view(-1).abs()
            smallest = numbers.sort().values[: len(numbers) // 2]
            expected[expected.abs() <= smallest[-1]] = 0
        assert torch.equal(value, expected), name


def test_only_a_tasks_own_weights_get_gradients_and_the_loss_is_of_the_masked_network() -> None:
    method = PackNet(pruned=0.5)
    models, _ = results(method, 1)
    earlier = models[1].own["t0"]
    plan = method.plan(models[1], tiny_task("t1", 3, seed=1), setup_of(NET, 1))
    first = next(plan)
    second = plan.send(result_of(first, noise(first.initial(), 5)))
    masks = second.masks  # type: ignore[attr-defined]
    for phase in (first, second):
        weights = {name: v.double().requires_grad_() for name, v in noise(phase.initial(), 6).items()}
        batch = batch_of(phase, double=True)
        loss = phase.loss(weights, batch, torch.Generator())
        used = {n: v * masks[n] if phase is second and n in masks else v for n, v in weights.items()}
        logits = run(NET, used, batch.x)
        assert loss.item() == pytest.approx(naive_cross_entropy(logits, batch.labels))
        alone = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, batch.labels), list(weights.values()))
        loss.backward()
        phase.change_gradients(weights, Step(0, 0, 2, 0.1))
        for (name, weight), gradient in zip(weights.items(), alone, strict=True):
            moves = torch.ones_like(weight)
            if name in masks:
                moves = (~earlier[f"mask.{name}"]).double()
            elif name.startswith("layer."):
                moves = torch.zeros_like(weight)  # biases, which the first task has trained
            torch.testing.assert_close(weight.grad, gradient * moves)


def test_a_task_answers_with_its_own_and_earlier_weights_as_long_as_there_are_tasks() -> None:
    learner = learner_of(PackNet(pruned=0.3), NET, training=QUICK)
    x, answers, biases = torch.randn(3, *GREY), {}, {}
    for k in range(7):  # after which no layer has a free weight but the largest
        name = f"t{k}"
        learner.learn(tiny_task(name, 2 + k % 2, seed=k))
        model = learner.model
        if k == 0:
            biases = {n: v for n, v in model.shared.items() if n.endswith("bias")}
        assert all(torch.equal(model.shared[n], v) for n, v in biases.items())
        own = model.own[name]
        weights: dict[str, Tensor] = {**model.shared, **own}
        weights |= {n: model.shared[n] * own[f"mask.{n}"] for n in kernels(NET)}
        answers[name] = run(NET, weights, x)
        for other, answer in answers.items():
            assert torch.equal(PackNet().logits(NET, model, other, x), answer)
    learner.forget("t6")
    learner.learn(tiny_task("t7", seed=9))  # on the weights that are free again
    for other, answer in answers.items():
        assert other == "t6" or torch.equal(PackNet().logits(NET, learner.model, other, x), answer)
