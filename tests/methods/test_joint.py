from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from learner.fixture import GREY, assert_same_tensors, tiny_net, tiny_task

from lasem import Learner, Task
from lasem.errors import ConfigError
from lasem.methods import Joint, Model
from lasem.methods.model import prefixed
from lasem.methods.plain import run
from lasem.methods.replay import remembered, to_remember
from lasem.nets import digits
from lasem.training import AbstractPhase, Batch, TrainingConfig, TrainingState, accuracy, part_of
from methods.fixture import CPU, drive, learner_of, naive_cross_entropy, result_of, seeded, setup_of

QUICK = TrainingConfig(epochs=2, batch_size=4, learning_rate=0.01)
NET = tiny_net(dropout=0.0)


def untrained(method: Joint, tasks: list[Task], training: TrainingConfig = QUICK) -> tuple[AbstractPhase, Model]:
    """The last task's phase, and a model whose weights are what each phase starts from."""
    model = Model()
    for k, task in enumerate(tasks):
        plan = method.plan(model, task, setup_of(NET, k, training))
        learned, (phase,) = drive(plan, lambda phase: result_of(phase, phase.initial()))
        model = learned.model
    return phase, model


def three_tasks() -> list[Task]:
    return [tiny_task(f"t{k}", 2 + k, seed=k, num_train=size) for k, size in enumerate((10, 22, 5))]


@pytest.mark.parametrize("drop_last", [False, True])
def test_an_epoch_is_one_pass_over_all_tasks_in_batches_of_one_task(drop_last: bool) -> None:
    tasks = three_tasks()
    phase, _ = untrained(Joint(), tasks, replace(QUICK, drop_last=drop_last))
    order = seeded()
    first, second, again = (list(phase.batches(CPU, source)) for source in (order, order, seeded()))
    assert phase.num_batches == len(first) == len(second) == (2 + 5 + 1 if drop_last else 3 + 6 + 1)  # no batch of one
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
            assert seen <= whole if drop_last else seen == whole
    assert sum(batch.task == "t1" for batch in first) == (5 if drop_last else 6)  # in proportion to its size


def test_the_order_of_tasks_is_drawn_anew_and_evenly() -> None:
    phase, _ = untrained(Joint(), [tiny_task(f"t{k}", seed=k, num_train=size) for k, size in enumerate((4, 12))])
    order = seeded()
    places = Counter([batch.task for batch in phase.batches(CPU, order)].index("t0") for _ in range(400))
    assert all(70 <= places[place] <= 130 for place in range(4))  # 100 expected, deviation 8.7


def test_a_batch_trains_the_layers_and_its_own_tasks_head() -> None:
    phase, _ = untrained(Joint(), three_tasks())
    weights = {name: value.clone().requires_grad_(True) for name, value in phase.initial().items()}
    for k, task in enumerate(three_tasks()):
        x, labels = next(task.train.batches(4))
        loss = phase.loss(weights, Batch(x, labels, task.name), torch.Generator())
        layers = {name: value for name, value in weights.items() if name.startswith("layer.")}
        logits = run(NET, {**layers, **part_of(weights, f"task.{k}")}, x)
        assert logits.shape == (4, 2 + k)
        assert float(loss.detach()) == pytest.approx(naive_cross_entropy(logits, labels), rel=1e-5)
        for value in weights.values():
            value.grad = None
        loss.backward()
        touched = {name.split(".")[1] for name, value in weights.items() if name[0] == "t" and value.grad is not None}
        assert touched == {str(k)}
        assert all(value.grad is not None for value in layers.values())


def test_the_validation_accuracy_is_the_mean_over_tasks_however_large() -> None:
    phase, model = untrained(Joint(), three_tasks())
    each = [accuracy(lambda x, t=t: Joint().logits(NET, model, t.name, x), t.valid, CPU) for t in three_tasks()]
    assert len(set(each)) > 1
    assert phase.accuracy(phase.initial()) == pytest.approx(sum(each) / 3)
    assert phase.num_valid == 18


@pytest.mark.parametrize("restart", [False, True])
def test_earlier_weights_go_on_or_begin_afresh_and_are_trained_again(restart: bool) -> None:
    tasks, method = three_tasks(), Joint(restart=restart)
    learner = learner_of(method, NET, training=QUICK)
    for task in tasks[:2]:
        learner.learn(task)
    before = learner.model
    start = next(method.plan(before, tasks[2], setup_of(NET, 2, QUICK))).initial()
    old = dict(before.shared)
    for k, own in enumerate(before.own.values()):
        old |= prefixed(f"task.{k}", own)
    assert start.keys() == old.keys() | {name for name in start if name.startswith("task.2.")}
    for name, value in old.items():
        assert start[name].shape == value.shape
        assert torch.equal(start[name], value) != restart, name
    first = untrained(method, tasks[:2])[0].initial()
    assert not torch.equal(first["layer.0.weight"], start["layer.0.weight"])  # each restart draws its own
    if restart:  # no two heads alike
        assert not torch.equal(start["task.0.head.weight.0"], start["task.1.head.weight.0"])
        assert not torch.equal(start["task.1.head.weight.0"], start["task.2.head.weight.0"])
    assert learner.learn(tasks[2]).configuration == "TT"
    for name, own in before.own.items():
        assert own.keys() == learner.model.own[name].keys()
        assert not any(torch.equal(value, learner.model.own[name][key]) for key, value in own.items())
    assert not any(torch.equal(value, learner.model.shared[key]) for key, value in before.shared.items())


def test_earlier_tasks_are_not_forgotten() -> None:
    net = replace(NET, channels=(8, 8), hidden=(16,))
    tasks = [tiny_task(f"t{k}", seed=k, num_train=20) for k in range(2)]
    learner = learner_of(Joint(), net, training=TrainingConfig(epochs=15, batch_size=5, learning_rate=0.01), seed=0)
    for task in tasks:
        learner.learn(task)
    assert [learner.accuracy(task.name, task.train) for task in tasks] == [1.0, 1.0]


@pytest.mark.parametrize("kind", ["bytes", "floats", "signed"])
@pytest.mark.parametrize("standardise", ["train", "split", "none"])
def test_what_is_remembered_gives_the_same_batches(kind: str, standardise: Any) -> None:
    images = torch.randint(0, 256, (12, *GREY), dtype=torch.uint8, generator=seeded())
    if kind != "bytes":
        images = images / 255 - (0.5 if kind == "signed" else 0)
    labels = torch.arange(12) % 3
    parts = [(images[part], labels[part]) for part in (slice(0, 6), slice(6, 9), slice(9, 12))]
    task = Task.from_tensors("a", train=parts[0], valid=parts[1], test=parts[2], standardise=standardise)
    memory = to_remember(task, 0, CPU) | to_remember(tiny_task("b", seed=3), 10, CPU)
    assert memory["0.train.images"].dtype == (torch.uint8 if kind == "bytes" else torch.float32)
    for again, split in zip(remembered(memory, 0), (task.train, task.valid), strict=True):
        assert (again.images.scale is None) == (kind == "signed")
        for (x, numbers), (y, others) in zip(again.batches(4), split.batches(4), strict=True):
            assert torch.equal(x, y)
            assert torch.equal(numbers, others)
    owners = [value.untyped_storage().data_ptr() for value in memory.values()]
    assert len(set(owners)) == len(owners)  # a file of tensors may not hold two views of the same numbers


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8)], ids=["grey", "colour"])
def test_killed_and_resumed_it_is_the_same_to_the_bit(shape: tuple[int, int, int], tmp_path: Path) -> None:
    """With images that are views of others whose channels are last, as decoders give them; files do not keep that."""

    def task_of(k: int) -> Task:
        plain = tiny_task(f"t{k}", 2 + k, shape, seed=k)
        given = {}
        for part, split in (("train", plain.train), ("valid", plain.valid), ("test", plain.test)):
            images = split.images.take(torch.arange(len(split)))
            last = images.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)
            given[part] = (last.permute(0, 3, 1, 2), split.labels)
        return Task.from_tensors(plain.name, **given, classes=plain.classes)

    whole = learner_of(Joint(), digits(shape), training=QUICK)
    for k in range(3):
        whole.learn(task_of(k))
    killed = learner_of(Joint(), digits(shape), training=QUICK)
    killed.learn(task_of(0))
    states: list[TrainingState] = []
    for k in (1, 2):
        killed.save(tmp_path)
        Learner.load(tmp_path).learn(task_of(k), on_epoch=lambda epoch, timing, state: states.append(state()))
        killed = Learner.load(tmp_path)  # as if the process had ended after the first of the task's two epochs
        killed.learn(task_of(k), resume_from=states[-2])
    for name in ("shared", "own", "memory"):
        assert_same_tensors(dict(getattr(killed.model, name)), dict(getattr(whole.model, name)))


def test_falling_steps_and_restarts_do_not_go_together() -> None:
    falling = TrainingConfig(schedule="inverse", learning_rate_decay=0.001)
    with pytest.raises(ConfigError, match=r"Joint\.restart .* TrainingConfig\.schedule 'inverse'"):
        learner_of(Joint(), NET, training=falling)
    learner_of(Joint(restart=False), NET, training=falling)
    learner_of(Joint(), NET, training=replace(falling, learning_rate_decay=0.0))
