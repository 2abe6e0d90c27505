from collections.abc import Mapping
from itertools import product
from typing import Any

import pytest
import torch
from learner.fixture import tiny_net, tiny_task
from torch import Tensor

from lasem import Net, Task, TrainingConfig
from lasem.methods import EWC, Model, Setup
from lasem.methods.plain import initial_head, initial_layers, run
from methods.fixture import NETS, batch_of, every_net, learner_of, seeded, setup_of


def start(net: Net, num_classes: int = 3, num_train: int = 7) -> tuple[Task, Setup, Any, Any]:
    task = tiny_task(num_classes=num_classes, num_train=num_train)
    setup = setup_of(net, seed=5)
    return task, setup, initial_layers(setup), initial_head(setup, num_classes)


def naive_squares(net: Net, layers: dict[str, Tensor], head: dict[str, Tensor], task: Task) -> Tensor:
    """(d log p(y | x) / d theta)^2 in float64, shape (images, classes, numbers), and the probabilities before it."""
    theta = {name: value.double().requires_grad_() for name, value in layers.items()}
    fixed = {name: value.double() for name, value in head.items()}
    rows = []
    for x, _ in task.train.batches(1):
        log_p = torch.log_softmax(run(net, {**theta, **fixed}, x.double()), dim=1)[0]
        columns = []
        for y in range(len(log_p)):
            gradients = torch.autograd.grad(log_p[y], list(theta.values()), retain_graph=True)
            columns.append(torch.cat([gradient.flatten() for gradient in gradients]) ** 2)
        rows.append(torch.stack(columns))
    return torch.stack(rows)


def probabilities(net: Net, layers: dict[str, Tensor], head: dict[str, Tensor], task: Task) -> Tensor:
    images, _ = next(iter(task.train.batches(len(task.train))))
    weights = {name: value.double() for name, value in {**layers, **head}.items()}
    return torch.softmax(run(net, weights, images.double()), dim=1)


def flat(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([tensors[name].flatten() for name in like]).double()


@every_net
@pytest.mark.parametrize("fisher", ["exact", "empirical"])
def test_importances_are_means_over_images_and_expectations_over_labels(net: Net, fisher: Any) -> None:
    task, setup, layers, head = start(net)
    squares, p = naive_squares(net, layers, head, task), probabilities(net, layers, head, task)
    weight = p if fisher == "exact" else torch.nn.functional.one_hot(task.train.labels, p.shape[1])
    expected = torch.zeros(squares.shape[2], dtype=torch.float64)
    for n, y in product(*map(range, p.shape)):
        expected += weight[n, y] * squares[n, y] / len(squares)
    importances = EWC(fisher=fisher).importances(layers, head, task, setup)
    assert list(importances) == list(layers)
    assert all(value.dtype == torch.float32 for value in importances.values())
    torch.testing.assert_close(flat(importances, layers), expected, rtol=1e-4, atol=1e-8)
    assert expected.max() > 1e-3


def test_sampled_importances_are_unbiased() -> None:
    net, repeats = NETS[1], 150
    task, setup, layers, head = start(net, num_train=4)
    head = {name: 2 * value for name, value in head.items()}  # probabilities that are far from equal
    squares, p = naive_squares(net, layers, head, task), probabilities(net, layers, head, task)
    exact = (p[:, :, None] * squares).sum(dim=1)
    variance = ((p[:, :, None] * squares**2).sum(dim=1) - exact**2).sum(dim=0) / 16  # of the mean over four images
    images = task.train.images.take(torch.arange(4))
    often = Task.from_tensors(
        "often",
        train=(images.repeat(repeats, 1, 1, 1), task.train.labels.repeat(repeats)),
        valid=(images, task.train.labels),
        test=(images, task.train.labels),
    )
    sampled = flat(EWC(fisher="sampled").importances(layers, head, often, setup), layers)
    standard_error = (variance / repeats).sqrt()
    assert ((sampled - exact.mean(dim=0)).abs() <= 5 * standard_error + 1e-6).all()
    assert (sampled - exact.mean(dim=0)).norm() < 0.2 * exact.mean(dim=0).norm()
    empirical = flat(EWC(fisher="empirical").importances(layers, head, often, setup), layers)
    assert ((empirical - exact.mean(dim=0)).abs() > 5 * standard_error + 1e-6).any()  # the test can fail
    other = setup_of(net, seed=6)
    assert torch.equal(sampled, flat(EWC(fisher="sampled").importances(layers, head, often, setup), layers))
    assert not torch.equal(sampled, flat(EWC(fisher="sampled").importances(layers, head, often, other), layers))


@pytest.mark.parametrize("fisher", ["exact", "sampled", "empirical"])
def test_chunks_do_not_change_importances(fisher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task, setup, layers, head = start(NETS[0], num_train=9)
    method = EWC(fisher=fisher)  # type: ignore[arg-type]
    whole = flat(method.importances(layers, head, task, setup), layers)
    size = sum(value.numel() for value in layers.values())
    for most_numbers in (1, 2 * size, 7 * size):  # one gradient at a time; some labels; some images
        monkeypatch.setattr("lasem.training.importance._MAX_NUMBERS", most_numbers)
        parts = flat(method.importances(layers, head, task, setup), layers)
        torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-8)
    monkeypatch.setattr("lasem.methods.penalties.MAX_IMAGES", 4)  # three mini-batches, the last one incomplete
    batched = flat(method.importances(layers, head, task, setup), layers)
    torch.testing.assert_close(batched, whole, rtol=1e-5, atol=1e-8)


def test_importances_are_computed_without_dropout_and_from_as_many_images_as_asked() -> None:
    task, setup, layers, head = start(NETS[0], num_train=9)
    without = setup_of(tiny_net(depth=2, dropout=0.0), seed=5)
    everything = flat(EWC().importances(layers, head, task, setup), layers)
    assert torch.equal(everything, flat(EWC().importances(layers, head, task, without), layers))
    assert torch.equal(everything, flat(EWC(num_samples=100).importances(layers, head, task, setup), layers))
    squares, p = naive_squares(NETS[0], layers, head, task), probabilities(NETS[0], layers, head, task)
    each = (p[:, :, None] * squares).sum(dim=1)
    some = flat(EWC(num_samples=3).importances(layers, head, task, setup), layers)
    matches = [
        torch.allclose(some, each[list(chosen)].mean(dim=0), rtol=1e-4, atol=1e-8)
        for chosen in torch.combinations(torch.arange(9), 3).tolist()
    ]
    assert sum(matches) == 1


def test_a_dead_unit_has_no_importance_and_does_no_harm() -> None:
    task, setup, layers, head = start(NETS[0])
    layers["layer.0.bias"][1] = -100.0
    importances = EWC().importances(layers, head, task, setup)
    assert (importances["layer.0.weight"][1] == 0).all()
    assert importances["layer.0.bias"][1] == 0
    assert (importances["layer.0.weight"][0] > 0).any()
    memory = EWC().consolidate({}, importances, layers)
    memory = EWC().consolidate(memory, importances, {name: value + 1 for name, value in layers.items()})
    assert all(value.isfinite().all() for value in memory.values())


@pytest.mark.parametrize("form", ["separate", "online"])
def test_the_penalty_is_its_definition(form: Any) -> None:
    """The sum of the tasks' separate terms, or one term around the latest weights whose importances fade."""
    method, generator = EWC(strength=3.0, form=form, decay=0.6), seeded()

    def draw() -> dict[str, Tensor]:
        shapes = {"layer.0.weight": (3, 4), "layer.0.bias": (3,)}
        return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}

    memory: dict[str, Tensor] = {}
    tasks: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
    for k in range(3):
        importances, anchors = {name: value**2 for name, value in draw().items()}, draw()
        importances["layer.0.bias"][0] *= k == 2  # a weight that the first tasks do not need
        tasks.append((importances, anchors))
        memory = method.consolidate(memory, importances, anchors)
        theta = {name: value.requires_grad_() for name, value in draw().items()}
        expected = torch.zeros((), dtype=torch.float64)
        for age, (fisher, anchor) in enumerate(reversed(tasks)):
            share, at = (1.0, anchor) if form == "separate" else (0.6**age, anchors)
            for name, value in theta.items():
                expected = expected + 3.0 / 2 * share * (fisher[name] * (value - at[name]) ** 2).sum()
        penalty = method.guard(memory).penalty({**theta, "head.bias.0": torch.full((2,), float("nan"))})
        torch.testing.assert_close(penalty, expected, rtol=1e-12, atol=1e-12)
        gradients = [torch.autograd.grad(value, list(theta.values())) for value in (penalty, expected)]
        torch.testing.assert_close(gradients[0], gradients[1])


def model_of(method: EWC, num_tasks: int) -> Model:
    training = TrainingConfig(epochs=3, batch_size=5, learning_rate=0.01)
    return learner_of(method, NETS[0], num_tasks, training=training, seed=2).model


def test_the_loss_of_a_later_task_is_cross_entropy_and_penalty() -> None:
    method = EWC(strength=70.0)
    model = model_of(method, 1)
    phase = next(method.plan(model, tiny_task("t1", 3, seed=1), setup_of(NETS[0], 1)))
    weights = {name: value + 0.1 for name, value in phase.initial().items()}
    batch = batch_of(phase)
    answer = run(NETS[0], weights, batch.x, dropout=seeded(3))
    cross_entropy = float(torch.nn.functional.cross_entropy(answer, batch.labels))
    penalty = sum(
        float(70.0 / 2 * (model.memory[f"importance.{name}"] * (weights[name] - value) ** 2).sum())
        for name, value in model.shared.items()
    )
    assert float(phase.loss(weights, batch, seeded(3))) == pytest.approx(cross_entropy + penalty, rel=1e-5)
    assert penalty > 0.01


def test_what_is_kept_does_not_grow_with_tasks() -> None:
    one, three = (model_of(EWC(), num_tasks).memory for num_tasks in (1, 3))
    assert {name: value.shape for name, value in one.items()} == {name: value.shape for name, value in three.items()}
    assert not any("head" in name for name in one)
    assert float(one["constant"]) == 0 < float(three["constant"])
