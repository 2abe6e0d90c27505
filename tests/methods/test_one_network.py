from __future__ import annotations

import json
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from learner.fixture import GREY, files_in, tiny_net, tiny_task
from safetensors.torch import load, save
from torch import Tensor

from lasem.data import Task
from lasem.errors import ConfigError
from lasem.learner import Learner
from lasem.methods import EWC, Learned, Model, OneNetwork, Setup
from lasem.methods.model import count
from lasem.methods.plain import run
from lasem.nets import Net
from lasem.records import EpochRecord, TimingRecord
from lasem.training import AbstractPhase, Batch, EpochSummary, PhaseResult, Snapshot, TrainingConfig, TrainingState

QUICK = TrainingConfig(epochs=2, batch_size=5, learning_rate=0.01)
CPU = torch.device("cpu")
both = pytest.mark.parametrize("method", [OneNetwork(), OneNetwork(outputs="shared")], ids=["own", "shared"])
IMAGES = torch.rand(7, *GREY, generator=torch.Generator().manual_seed(0))


def net_of(hidden: tuple[int, ...] = (5,), dropout: float = 0.5) -> Net:
    return replace(tiny_net(dropout=dropout), hidden=hidden)


def trained_by_one(
    method: OneNetwork, model: Model, task: Task, k: int, net: Net
) -> tuple[AbstractPhase, dict[str, Tensor], Model]:
    """The phase, its start, and the model if training added 1 to every number."""
    plan: Generator[AbstractPhase, PhaseResult, Learned] = method.plan(model, task, Setup(net, QUICK, CPU, 3, k))
    phase = next(plan)
    start = {name: value.clone() for name, value in phase.initial().items()}
    end = Snapshot(1, 0.5, {name: value + 1 for name, value in start.items()}, EpochSummary("TT"))
    with pytest.raises(StopIteration) as stop:
        plan.send(PhaseResult(end, end, 1))
    return phase, start, stop.value.value.model


@both
@pytest.mark.parametrize("hidden", [(), (5,), (5, 4)])
def test_the_second_task_begins_with_what_the_first_one_left(method: OneNetwork, hidden: tuple[int, ...]) -> None:
    net, last = net_of(hidden), len(hidden)
    _, start, first = trained_by_one(method, Model(), tiny_task("a", 3), 0, net)
    kept = {name: value.clone() for name, value in first.shared.items()}
    outputs = {f"head.weight.{last}", f"head.bias.{last}"}
    assert first.shared.keys() == (start.keys() - outputs if method.outputs == "own" else start.keys())
    assert all(torch.equal(value, start[name] + 1) for name, value in first.shared.items())
    _, again, second = trained_by_one(method, first, tiny_task("b", 3, seed=1), 1, net)
    for name, value in again.items():
        went_on = name in first.shared
        assert torch.equal(value, start[name] + 1) == went_on, name
        assert went_on or method.outputs == "own"
    assert first.own["a"] is second.own["a"]
    assert all(torch.equal(first.shared[name], value) for name, value in kept.items())  # the model given is only read
    if method.outputs == "own":
        assert second.own["b"].keys() == outputs
        x = torch.randn(2, *GREY)
        assert torch.equal(method.logits(net, second, "a", x), run(net, {**second.shared, **first.own["a"]}, x))


@pytest.mark.parametrize("hidden", [(), (5,)])
def test_shared_outputs_grow_and_serve_the_same_positions(hidden: tuple[int, ...]) -> None:
    method, net = OneNetwork(outputs="shared"), net_of(hidden)
    weight, bias = f"head.weight.{len(hidden)}", f"head.bias.{len(hidden)}"
    model, x = Model(), torch.randn(4, *GREY)
    sizes = {"a": 3, "b": 5, "c": 2, "d": 5}
    largest = 0
    for k, (name, num_classes) in enumerate(sizes.items()):
        before = model
        _, start, model = trained_by_one(method, model, tiny_task(name, num_classes, seed=k), k, net)
        old, largest = largest, max(largest, num_classes)
        assert len(start[weight]) == len(start[bias]) == num_classes
        assert len(model.shared[weight]) == len(model.shared[bias]) == largest
        common = min(old, num_classes)
        for place in (weight, bias):
            if old:
                assert torch.equal(start[place][:common], before.shared[place][:common])
                assert torch.equal(model.shared[place][num_classes:], before.shared[place][num_classes:])
            assert torch.equal(model.shared[place][:num_classes], start[place] + 1)
        whole = run(net, model.shared, x)
        for other in list(sizes)[: k + 1]:
            assert torch.equal(method.logits(net, model, other, x), whole[:, : sizes[other]])
            assert count(model.own[other]) == 1
    assert float(start[weight].std()) > 0


@both
def test_training_is_plain_cross_entropy(method: OneNetwork) -> None:
    net = net_of(dropout=0.0)
    _, _, first = trained_by_one(method, Model(), tiny_task("a", 4), 0, net)
    task = tiny_task("b", 3, seed=1)  # fewer classes: outputs that the task has not compete with none
    phase = next(method.plan(first, task, Setup(net, QUICK, CPU, 3, 1)))
    weights = {name: torch.randn_like(value) for name, value in phase.initial().items()}
    x, labels = next(task.train.batches(6))
    rows = run(net, weights, x).double().numpy()
    assert rows.shape == (6, 3)
    expected = np.mean([np.log(np.exp(row).sum()) - row[label] for row, label in zip(rows, labels, strict=True)])
    assert float(phase.loss(weights, Batch(x, labels, "b"), torch.Generator())) == pytest.approx(expected, rel=1e-5)
    right = [int(run(net, weights, x)[0].argmax()) == int(label) for x, label in task.valid.batches(1)]
    assert phase.accuracy(weights) == pytest.approx(np.mean(right))


@both
def test_the_first_task_is_learned_as_by_any_plain_network(method: OneNetwork) -> None:
    learner = Learner(net_of(), method, training=QUICK, seed=1)
    plain = Learner(net_of(), EWC(), training=QUICK, seed=1)
    for each in (learner, plain):
        each.learn(tiny_task("a", 3))
    assert torch.equal(learner.logits("a", IMAGES), plain.logits("a", IMAGES))


@both
def test_nothing_protects_earlier_tasks(method: OneNetwork) -> None:
    training = TrainingConfig(epochs=20, batch_size=5, learning_rate=0.01)
    net = replace(tiny_net(dropout=0.0), channels=(8, 8), hidden=(16,))
    tasks = [tiny_task(f"t{k}", 4, seed=k, num_train=20) for k in range(2)]
    learner = Learner(net, method, training=training, seed=0)
    peaks = []
    for task in tasks:
        record = learner.learn(task)
        assert record.configuration == "TT"
        peaks.append(learner.accuracy(task.name, task.train))
    final = [learner.accuracy(task.name, task.train) for task in tasks]
    assert min(peaks) >= 0.9
    assert final[0] <= peaks[0] - 0.1
    assert final[1] == peaks[1]
    if method.outputs == "shared":  # but for their names, tasks are one and the same network
        assert torch.equal(run_of(learner, "t0"), run_of(learner, "t1"))


def run_of(learner: Learner, name: str) -> Tensor:
    return learner.method.logits(learner.net, learner.model, name, IMAGES)


def test_shared_outputs_are_saved_read_and_resumed(tmp_path: Path) -> None:
    method, states = OneNetwork(outputs="shared"), []
    learner = Learner(net_of(), method, training=QUICK, seed=7)
    learner.learn(tiny_task("a", 4))
    learner.save(tmp_path / "before")

    def keep(epoch: EpochRecord, _: TimingRecord, state: Callable[[], TrainingState]) -> None:
        tensors, plain = state()
        states.append(TrainingState(load(save(dict(tensors))), json.loads(json.dumps(plain))))

    record = learner.learn(tiny_task("b", 2, seed=1), on_epoch=keep)
    learner.save(tmp_path / "whole")
    read = Learner.load(tmp_path / "whole")
    for name, num_classes in (("a", 4), ("b", 2)):
        assert torch.equal(read.logits(name, IMAGES), learner.logits(name, IMAGES))
        assert read.predict(name, IMAGES, probabilities=True).shape == (7, num_classes)
    for at, state in enumerate(states):
        again = Learner.load(tmp_path / "before")
        assert again.learn(tiny_task("b", 2, seed=1), resume_from=state) == record
        again.save(tmp_path / str(at))
        assert files_in(tmp_path / str(at)) == files_in(tmp_path / "whole")


def test_an_unknown_choice() -> None:
    with pytest.raises(ConfigError, match=r"OneNetwork\.outputs must be one of own, shared; got 'shard'"):
        OneNetwork(outputs="shard")  # type: ignore[arg-type]
