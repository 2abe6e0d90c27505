from dataclasses import replace

import pytest
import torch
from learner.fixture import GREY, tiny_net, tiny_task
from torch import Tensor

from lasem import Net, Task
from lasem.methods import Model, OneNetwork
from lasem.methods.model import count
from lasem.methods.plain import run
from lasem.training import AbstractPhase, PhaseResult, TrainingConfig
from methods.fixture import drive, learner_of, result_of, setup_of

both = pytest.mark.parametrize("method", [OneNetwork(), OneNetwork(outputs="shared")], ids=["own", "shared"])


def net_of(hidden: tuple[int, ...] = (5,), dropout: float = 0.5) -> Net:
    return replace(tiny_net(dropout=dropout), hidden=hidden)


def trained_by_one(method: OneNetwork, model: Model, task: Task, k: int, net: Net) -> tuple[dict[str, Tensor], Model]:
    """The phase's start, and the model if training added 1 to every number."""

    def train(phase: AbstractPhase) -> PhaseResult:
        return result_of(phase, {name: value + 1 for name, value in phase.initial().items()})

    learned, (phase,) = drive(method.plan(model, task, setup_of(net, k)), train)
    return phase.initial(), learned.model


@both
@pytest.mark.parametrize("hidden", [(), (5,), (5, 4)])
def test_the_second_task_begins_with_what_the_first_one_left(method: OneNetwork, hidden: tuple[int, ...]) -> None:
    net, last = net_of(hidden), len(hidden)
    start, first = trained_by_one(method, Model(), tiny_task("a", 3), 0, net)
    outputs = {f"head.weight.{last}", f"head.bias.{last}"}
    assert first.shared.keys() == (start.keys() - outputs if method.outputs == "own" else start.keys())
    assert all(torch.equal(value, start[name] + 1) for name, value in first.shared.items())
    again, second = trained_by_one(method, first, tiny_task("b", 3, seed=1), 1, net)
    for name, value in again.items():
        went_on = name in first.shared
        assert torch.equal(value, start[name] + 1) == went_on, name
        assert went_on or method.outputs == "own"
    if method.outputs == "own":
        assert second.own["b"].keys() == outputs
        x = torch.randn(2, *GREY)
        assert torch.equal(method.logits(net, second, "a", x), run(net, {**second.shared, **first.own["a"]}, x))


@pytest.mark.parametrize("hidden", [(), (5,)])
def test_shared_outputs_grow_and_serve_the_same_positions(hidden: tuple[int, ...]) -> None:
    method, net = OneNetwork(outputs="shared"), net_of(hidden)
    outputs = (f"head.weight.{len(hidden)}", f"head.bias.{len(hidden)}")
    model, x, largest = Model(), torch.randn(4, *GREY), 0
    sizes = {"a": 3, "b": 5, "c": 2, "d": 5}
    for k, (name, num_classes) in enumerate(sizes.items()):
        before = model
        start, model = trained_by_one(method, model, tiny_task(name, num_classes, seed=k), k, net)
        old, largest = largest, max(largest, num_classes)
        common = min(old, num_classes)
        for place in outputs:
            assert (len(start[place]), len(model.shared[place])) == (num_classes, largest)
            if old:
                assert torch.equal(start[place][:common], before.shared[place][:common])
                assert torch.equal(model.shared[place][num_classes:], before.shared[place][num_classes:])
            assert torch.equal(model.shared[place][:num_classes], start[place] + 1)
        whole = run(net, model.shared, x)
        for other in list(sizes)[: k + 1]:
            assert torch.equal(method.logits(net, model, other, x), whole[:, : sizes[other]])
            assert count(model.own[other]) == 1
    assert float(start[outputs[0]].std()) > 0


@both
def test_nothing_protects_earlier_tasks(method: OneNetwork) -> None:
    net = replace(tiny_net(dropout=0.0), channels=(8, 8), hidden=(16,))
    tasks = [tiny_task(f"t{k}", 4, seed=k, num_train=20) for k in range(2)]
    learner = learner_of(method, net, training=TrainingConfig(epochs=20, batch_size=5, learning_rate=0.01), seed=0)
    peaks = []
    for task in tasks:
        assert learner.learn(task).configuration == "TT"
        peaks.append(learner.accuracy(task.name, task.train))
    final = [learner.accuracy(task.name, task.train) for task in tasks]
    assert min(peaks) >= 0.9
    assert final[0] <= peaks[0] - 0.1
    assert final[1] == peaks[1]
    if method.outputs == "shared":  # but for their names, tasks are one and the same network
        images = torch.rand(7, *GREY)
        first, second = (method.logits(net, learner.model, name, images) for name in ("t0", "t1"))
        assert torch.equal(first, second)
