"""What is kept, what joins a mini-batch, and the loss against the definitions."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from learner.fixture import tiny_net, tiny_task
from torch import Tensor

from lasem import Task, TrainingConfig
from lasem.data import Split
from lasem.methods import ER, Model
from lasem.methods.plain import run
from lasem.methods.replay import as_split, chosen
from lasem.training import AbstractPhase, part_of
from methods.fixture import CPU, drive, learner_of, naive_cross_entropy, noise, result_of, seeded, setup_of

NET = tiny_net(dropout=0.0)
QUICK = TrainingConfig(epochs=2, batch_size=4, learning_rate=0.01)


def rows_of(split: Split) -> list[tuple[bytes, int]]:
    """Each standardised image with its label."""
    return [(x[0].numpy().tobytes(), int(label)) for x, label in split.batches(1)]


@pytest.mark.parametrize("per_class", [1, 3, 100])
def test_as_many_images_of_each_class_are_kept(per_class: int) -> None:
    split = tiny_task("a", 3, num_train=14).train
    kept, whole = chosen(split, per_class, seeded()), rows_of(split)
    assert Counter(kept.labels.tolist()) == {0: min(per_class, 5), 1: min(per_class, 5), 2: min(per_class, 4)}
    assert not Counter(rows_of(kept)) - Counter(whole)
    assert rows_of(chosen(split, per_class, seeded())) == rows_of(kept)
    if per_class < 4:
        drawn = Counter(row for seed in range(300) for row in rows_of(chosen(split, per_class, seeded(seed))))
        sizes = Counter(split.labels.tolist())
        for row in whole:  # evenly: binomial, five deviations
            share = per_class / sizes[row[1]]
            assert abs(drawn[row] - 300 * share) < 5 * (300 * share * (1 - share)) ** 0.5


def tasks_of(num_tasks: int) -> list[Task]:
    return [tiny_task(f"t{k}", 2 + k, seed=k, num_train=14) for k in range(num_tasks)]


def last_phase(method: ER, num_tasks: int, training: TrainingConfig = QUICK) -> tuple[AbstractPhase, Model]:
    """The last task's phase, and the model before it; every phase ends where it starts."""
    model = Model()
    for k, task in enumerate(tasks_of(num_tasks)):
        before = model
        plan = method.plan(model, task, setup_of(NET, k, training))
        learned, (phase,) = drive(plan, lambda phase: result_of(phase, phase.initial()))
        model = learned.model
    return phase, before


@pytest.mark.parametrize("per_class", [1, 2])
def test_a_mini_batch_is_joined_with_as_many_stored_images(per_class: int) -> None:
    phase, model = last_phase(ER(per_class=per_class), 3)
    tasks = tasks_of(3)
    memory = Counter[tuple[bytes, int]]()
    for k, task in enumerate(tasks[:2]):
        kept = rows_of(as_split(part_of(model.memory, f"{k}")))
        assert len(kept) == per_class * task.num_classes
        assert not Counter(kept) - Counter(rows_of(task.train))
        memory += Counter((image, label + (2 if k else 0)) for image, label in kept)
    order = seeded()
    first, second, again = (list(phase.batches(CPU, source)) for source in (order, order, seeded()))
    assert len(first) == phase.num_batches == 4
    assert all(torch.equal(a.x, b.x) and torch.equal(a.labels, b.labels) for a, b in zip(first, again, strict=True))
    for epoch in (first, second):
        new: Counter[tuple[bytes, int]] = Counter()
        for batch, num in zip(epoch, (4, 4, 4, 2), strict=True):
            rows = [(x.numpy().tobytes(), int(label)) for x, label in zip(batch.x, batch.labels, strict=True)]
            assert len(rows) == num + min(num, 5 * per_class)
            new += Counter((image, label - 5) for image, label in rows[:num])
            assert not Counter(rows[num:]) - memory  # each stored image once at most
        assert new == Counter(rows_of(tasks[2].train))
    seen = Counter(int(label) for _ in range(100) for batch in phase.batches(CPU, order) for label in batch.labels[4:])
    assert max(seen.values()) < 1.25 * min(seen.values())  # 260 of each class expected


def test_the_loss_is_the_mean_over_images_each_with_its_own_head() -> None:
    phase, _ = last_phase(ER(per_class=2), 3)
    batch = next(iter(phase.batches(CPU, seeded())))
    weights = {name: value.double().requires_grad_() for name, value in noise(phase.initial(), 1).items()}
    layers = {name: value for name, value in weights.items() if name.startswith("layer.")}
    losses: list[Tensor] = []
    for x, label in zip(batch.x.double(), batch.labels.tolist(), strict=True):
        k, first = (0, 0) if label < 2 else (1, 2) if label < 5 else (2, 5)
        logits = run(NET, {**layers, **part_of(weights, f"task.{k}")}, x[None])
        assert logits.shape == (1, 2 + k)
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor([label - first])))
    loss, expected = phase.loss(weights, batch._replace(x=batch.x.double()), seeded()), torch.stack(losses).mean()
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(value, list(weights.values())) for value in (loss, expected)]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_the_first_task_is_plain_training_and_balance_leaves_the_memory_alone() -> None:
    phase, _ = last_phase(ER(), 1)
    batch = next(iter(phase.batches(CPU, seeded())))
    start = {name.removeprefix("task.0."): value for name, value in phase.initial().items()}
    expected = naive_cross_entropy(run(NET, start, batch.x), batch.labels)
    assert phase.loss(phase.initial(), batch, seeded()).item() == pytest.approx(expected, rel=1e-5)
    phase, _ = last_phase(ER(), 2, replace(QUICK, class_weights="balanced"))
    batch = next(iter(phase.batches(CPU, seeded())))
    assert batch.weights is not None
    assert (batch.weights[:4] != 1).any()
    assert batch.weights[4:].tolist() == [1.0] * 4


def test_memory_is_augmented_anew_for_every_epoch() -> None:
    phase, _ = last_phase(ER(), 2, replace(QUICK, augment="shift"))
    order, stored = seeded(), set()
    for _ in range(3):
        stored |= {x.numpy().tobytes() for batch in phase.batches(CPU, order) for x in batch.x[len(batch.x) // 2 :]}
    assert len(stored) > 14  # images that are kept


def test_memory_holds_what_would_be_forgotten_and_goes_with_its_task() -> None:
    training = TrainingConfig(epochs=20, batch_size=5, learning_rate=0.01, restore_best=False)
    tasks = tasks_of(3)
    learner = learner_of(ER(per_class=7), replace(NET, channels=(8, 8), hidden=(16,)), training=training, seed=0)
    for task in tasks:
        learner.learn(task)
    assert [learner.accuracy(task.name, task.train) for task in tasks] == [1.0] * 3
    before = learner.model.memory
    learner.forget("t1")
    assert set(learner.model.memory) == {name for name in before if not name.startswith("2.")}
    for old, new in ((0, 0), (2, 1)):
        for name, value in part_of(before, f"{old}").items():
            assert torch.equal(value, learner.model.memory[f"{new}.{name}"])
    learner.learn(tiny_task("t9", 2, seed=9))
    assert learner.accuracy("t2", tasks[2].train) == 1.0
