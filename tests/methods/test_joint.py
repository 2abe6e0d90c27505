from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from learner.fixture import GREY, tiny_net, tiny_task
from torch import Tensor

from lasem.data import Task
from lasem.errors import ConfigError
from lasem.learner import Learner
from lasem.methods import Joint, Learned, Model, Setup
from lasem.methods.joint import remembered, to_remember
from lasem.methods.plain import run
from lasem.training import AbstractPhase, Batch, EpochSummary, PhaseResult, Snapshot, TrainingConfig, accuracy, part_of

QUICK = TrainingConfig(epochs=2, batch_size=4, learning_rate=0.01)
CPU = torch.device("cpu")


def setup_of(index: int, training: TrainingConfig = QUICK, dropout: float = 0.0) -> Setup:
    return Setup(tiny_net(dropout=dropout), training, CPU, 3, index)


def learned(method: Joint, tasks: list[Task]) -> Model:
    """A model whose weights are what each phase starts from: nothing is trained."""
    model = Model()
    for k, task in enumerate(tasks):
        _, model = untrained(method, model, task, k)
    return model


def untrained(
    method: Joint, model: Model, task: Task, k: int, training: TrainingConfig = QUICK
) -> tuple[AbstractPhase, Model]:
    plan: Generator[AbstractPhase, PhaseResult, Learned] = method.plan(model, task, setup_of(k, training))
    phase = next(plan)
    start = Snapshot(1, 0.5, {name: value.clone() for name, value in phase.initial().items()}, EpochSummary("TT"))
    with pytest.raises(StopIteration) as stop:
        plan.send(PhaseResult(start, start, 1))
    return phase, stop.value.value.model


def three_tasks() -> list[Task]:
    return [tiny_task(f"t{k}", 2 + k, seed=k, num_train=size) for k, size in enumerate((10, 21, 5))]


@pytest.mark.parametrize("drop_last", [False, True])
def test_an_epoch_is_one_pass_over_all_tasks_in_batches_of_one_task(drop_last: bool) -> None:
    tasks, training = three_tasks(), replace(QUICK, drop_last=drop_last)
    phase, _ = untrained(Joint(), learned(Joint(), tasks[:2]), tasks[2], 2, training)
    order = torch.Generator().manual_seed(0)
    first, second = (list(phase.batches(CPU, order)) for _ in range(2))
    assert phase.num_batches == len(first) == len(second) == (2 + 5 + 1 if drop_last else 3 + 6 + 2)
    again = list(phase.batches(CPU, torch.Generator().manual_seed(0)))
    assert [batch.task for batch in again] == [batch.task for batch in first]
    assert all(torch.equal(a.x, b.x) and torch.equal(a.labels, b.labels) for a, b in zip(again, first, strict=True))
    assert [batch.task for batch in second] != [batch.task for batch in first]
    for epoch in (first, second):
        assert [batch.task for batch in epoch] != sorted(batch.task for batch in epoch)  # not task by task
        for task in tasks:
            of_task = [batch for batch in epoch if batch.task == task.name]
            seen = Counter(
                (x.numpy().tobytes(), int(label))
                for batch in of_task
                for x, label in zip(batch.x, batch.labels, strict=True)
            )
            whole = Counter((x[0].numpy().tobytes(), int(label)) for x, label in task.train.batches(1))
            if drop_last:
                assert [len(batch.labels) for batch in of_task] == [4] * (len(task.train) // 4)
                assert seen <= whole
            else:
                assert seen == whole
    assert sum(batch.task == "t1" for batch in first) == (5 if drop_last else 6)  # in proportion to its size


def test_the_order_of_tasks_is_drawn_anew_and_evenly() -> None:
    tasks = [tiny_task(f"t{k}", seed=k, num_train=size) for k, size in enumerate((4, 12))]
    phase, _ = untrained(Joint(), learned(Joint(), tasks[:1]), tasks[1], 1)
    order = torch.Generator().manual_seed(0)
    places = Counter([batch.task for batch in phase.batches(CPU, order)].index("t0") for _ in range(400))
    assert all(70 <= places[place] <= 130 for place in range(4))  # 100 expected, deviation 8.7


def naive_cross_entropy(logits: Tensor, labels: Tensor) -> float:
    rows = logits.detach().double().numpy()
    losses = [np.log(np.exp(row).sum()) - row[label] for row, label in zip(rows, labels.tolist(), strict=True)]
    return float(np.mean(losses))


def test_a_batch_trains_the_layers_and_its_own_tasks_head() -> None:
    tasks = three_tasks()
    phase, _ = untrained(Joint(), learned(Joint(), tasks[:2]), tasks[2], 2)
    weights = {name: value.clone().requires_grad_(True) for name, value in phase.initial().items()}
    for k, task in enumerate(tasks):
        x, labels = next(task.train.batches(4))
        loss = phase.loss(weights, Batch(x, labels, task.name), torch.Generator())
        layers = {name: value for name, value in weights.items() if name.startswith("layer.")}
        logits = run(tiny_net(), {**layers, **part_of(weights, f"task.{k}")}, x)
        assert logits.shape == (4, 2 + k)
        assert float(loss.detach()) == pytest.approx(naive_cross_entropy(logits, labels), rel=1e-5)
        for value in weights.values():
            value.grad = None
        loss.backward()
        touched = {name.split(".")[1] for name, value in weights.items() if name[0] == "t" and value.grad is not None}
        assert touched == {str(k)}
        assert all(value.grad is not None for value in layers.values())


def test_the_validation_accuracy_is_the_mean_over_tasks_however_large() -> None:
    tasks = three_tasks()
    phase, model = untrained(Joint(), learned(Joint(), tasks[:2]), tasks[2], 2)
    each = [accuracy(lambda x, t=t: Joint().logits(tiny_net(), model, t.name, x), t.valid, CPU) for t in tasks]
    assert len(set(each)) > 1
    assert phase.accuracy(phase.initial()) == pytest.approx(sum(each) / 3)
    assert phase.num_valid == 18


@pytest.mark.parametrize("restart", [False, True])
def test_earlier_weights_go_on_or_begin_afresh(restart: bool) -> None:
    tasks, method = three_tasks(), Joint(restart=restart)
    learner = Learner(tiny_net(), method, training=QUICK, seed=3)
    for task in tasks[:2]:
        learner.learn(task)
    before = learner.model
    start = next(method.plan(before, tasks[2], setup_of(2))).initial()
    old = dict(before.shared) | {
        f"task.{k}.{name}": value for k, own in enumerate(before.own.values()) for name, value in own.items()
    }
    new = {name for name in start if name.startswith("task.2.")}
    assert start.keys() == old.keys() | new
    assert {name: start[name].shape for name in old} == {name: value.shape for name, value in old.items()}
    for name, value in old.items():
        assert torch.equal(start[name], value) != restart, name
    first = next(method.plan(learned(method, tasks[:1]), tasks[1], setup_of(1))).initial()
    assert not torch.equal(first["layer.0.weight"], start["layer.0.weight"])  # each restart draws its own
    if restart:  # no two heads alike
        assert not torch.equal(start["task.0.head.weight.0"], start["task.1.head.weight.0"])
        assert not torch.equal(start["task.1.head.weight.0"], start["task.2.head.weight.0"])


@pytest.mark.parametrize("restart", [False, True])
def test_all_tasks_are_trained_again_when_one_arrives(restart: bool) -> None:
    learner = Learner(tiny_net(), Joint(restart=restart), training=QUICK, seed=3)
    for k, task in enumerate(three_tasks()):
        before = learner.model
        record = learner.learn(task)
        assert record.configuration == "TT"
        assert learner.task_names == tuple(f"t{j}" for j in range(k + 1))
        for name, own in before.own.items():
            assert own.keys() == learner.model.own[name].keys()
            assert not any(torch.equal(value, learner.model.own[name][key]) for key, value in own.items())
        assert not any(torch.equal(value, learner.model.shared[key]) for key, value in before.shared.items())


def test_earlier_tasks_are_not_forgotten() -> None:
    training, net = TrainingConfig(epochs=15, batch_size=5, learning_rate=0.01), tiny_net(dropout=0.0)
    net = replace(net, channels=(8, 8), hidden=(16,))
    tasks = [tiny_task(f"t{k}", seed=k, num_train=20) for k in range(2)]
    learner = Learner(net, Joint(), training=training, seed=0)
    for task in tasks:
        learner.learn(task)
    assert [learner.accuracy(task.name, task.train) for task in tasks] == [1.0, 1.0]


@pytest.mark.parametrize("kind", ["bytes", "floats"])
@pytest.mark.parametrize("standardise", ["train", "split", "none"])
def test_what_isremembered_gives_the_same_batches(kind: str, standardise: Any) -> None:
    images = torch.randint(0, 256, (12, *GREY), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    if kind == "floats":
        images = images / 255
    labels = torch.arange(12) % 3
    parts = [(images[part], labels[part]) for part in (slice(0, 6), slice(6, 9), slice(9, 12))]
    task = Task.from_tensors("a", train=parts[0], valid=parts[1], test=parts[2], standardise=standardise)
    memory = to_remember(task, 0, CPU) | to_remember(tiny_task("b", seed=3), 10, CPU)
    assert memory["0.train.images"].dtype == (torch.uint8 if kind == "bytes" else torch.float32)
    for again, split in zip(remembered(memory, 0), (task.train, task.valid), strict=True):
        for (x, numbers), (y, others) in zip(again.batches(4), split.batches(4), strict=True):
            assert torch.equal(x, y)
            assert torch.equal(numbers, others)
    owners = [value.untyped_storage().data_ptr() for value in memory.values()]
    assert len(set(owners)) == len(owners)  # a file of tensors may not hold two views of the same numbers


def test_falling_steps_and_restarts_do_not_go_together() -> None:
    falling = TrainingConfig(schedule="inverse", learning_rate_decay=0.001)
    with pytest.raises(ConfigError, match=r"Joint\.restart .* TrainingConfig\.schedule 'inverse'"):
        Learner(tiny_net(), Joint(), training=falling)
    Learner(tiny_net(), Joint(restart=False), training=falling)
    Learner(tiny_net(), Joint(), training=replace(falling, learning_rate_decay=0.0))
