from typing import Any

import pytest
import torch
from torch import Tensor

from lasem import Configuration, Learner, Task
from lasem.methods import AbstractProtection, Branch, Freeze, Penalty, Unprotected
from lasem.records import TaskRecord
from lasem.search import DARTS, EM, AbstractSelection, Exhaustive, Fixed
from lasem.sharing import AbstractSharing, HardSharing
from lasem.training import FisherKind, LayerWeights, TaskWeights, TrainingConfig, part_of
from lasem.tree import named
from learner.fixture import (
    SHARINGS,
    assert_same_tensors,
    copied,
    searching,
    start_of,
    tiny_net,
    tiny_task,
)

KEEPING = [Freeze(), Branch()]
CONFIG = TrainingConfig(epochs=2, batch_size=5)
TASKS = [tiny_task(f"task-{i}", num_classes=2 + i % 2, seed=i) for i in range(4)]


def learner_with(protect: AbstractProtection, sharing: Any = None, search: AbstractSelection | None = None) -> Learner:
    return Learner(tiny_net(), sharing=sharing, search=search or Fixed("all"), training=CONFIG, protect=protect, seed=3)


def learn(learner: Learner, tasks: list[Task] = TASKS) -> tuple[list[TaskRecord], list[Tensor]]:
    """Records, and what each task answered right after it was learned."""
    records, answers = [], []
    for task in tasks:
        records.append(learner.learn(task))
        answers.append(learner.logits(task.name, task.test.images.take(torch.arange(6))))
    return records, answers


def now(learner: Learner, tasks: list[Task] = TASKS) -> list[Tensor]:
    return [learner.logits(task.name, task.test.images.take(torch.arange(6))) for task in tasks]


@pytest.mark.parametrize(
    ("sharing", "search"),
    [
        *((sharing, Fixed("all")) for sharing in SHARINGS),
        *zip(SHARINGS, (Exhaustive(), EM(), DARTS(order="second")), strict=True),
    ],
    ids=lambda part: part.name,
)
@pytest.mark.parametrize("protect", KEEPING, ids=lambda p: p.name)
def test_earlier_answers_stay_the_same(protect: AbstractProtection, sharing: Any, search: AbstractSelection) -> None:
    learner = learner_with(protect, sharing, search)
    _, answers = learn(learner, TASKS[:3])
    assert all(torch.equal(then, after) for then, after in zip(answers, now(learner, TASKS[:3]), strict=True))


@pytest.mark.parametrize("sharing", SHARINGS, ids=lambda s: s.name)
@pytest.mark.parametrize("protect", [Unprotected(), Penalty(strength=10.0)], ids=lambda p: p.name)
def test_without_it_they_do_not(protect: AbstractProtection, sharing: AbstractSharing) -> None:
    learner = learner_with(protect, sharing)
    _, answers = learn(learner)
    assert not any(torch.equal(then, after) for then, after in zip(answers[:-1], now(learner)[:-1], strict=True))


@pytest.mark.parametrize("search", [Fixed("all"), EM()], ids=lambda s: s.name)
@pytest.mark.parametrize("sharing", SHARINGS, ids=lambda s: s.name)
def test_a_branched_model_learns_as_an_unprotected_one(sharing: AbstractSharing, search: AbstractSelection) -> None:
    (free, free_answers), (branched, answers) = (
        learn(learner_with(protect, sharing, search)) for protect in (Unprotected(), Branch())
    )
    assert [r.configuration for r in free] == [r.configuration for r in branched]
    assert [r.peak_accuracy for r in free] == [r.peak_accuracy for r in branched]
    assert all(torch.equal(a, b) for a, b in zip(free_answers, answers, strict=True))


def test_versions_are_counted_and_kept_as_long_as_a_task_uses_them() -> None:
    learner = learner_with(Branch(), HardSharing(), Fixed("TS"))
    learn(learner)
    layer = learner.net.blocks[0].num_parameters
    assert learner.model.num_shared() == 4 * layer
    before = now(learner)
    learner.forget("task-1")
    assert learner.model.num_shared() == 3 * layer
    left = [TASKS[0], *TASKS[2:]]
    assert all(torch.equal(a, b) for a, b in zip([before[0], *before[2:]], now(learner, left), strict=True))
    learner.forget("task-3")
    learner.learn(TASKS[1])
    assert learner.model.num_shared() == 3 * layer
    assert torch.equal(now(learner, TASKS[2:3])[0], before[2])


def test_frozen_knowledge_is_the_first_tasks_for_ever() -> None:
    learner = learner_with(Freeze())
    learner.learn(TASKS[0])
    before = shared(learner)
    learn(learner, TASKS[1:])
    assert_same_tensors(before, shared(learner))
    assert [learner.num_parameters(task.name) for task in TASKS[1:2]] == [
        sum(torch.Size(s).numel() for s in learner.net.head.shapes(TASKS[1].num_classes).values())
    ]


def shared(learner: Learner) -> dict[str, Tensor]:
    return {f"{key}.{name}": t.clone() for key, named in learner.model.versions.items() for name, t in named.items()}


def whose_first_layer_nobody_uses(protect: AbstractProtection) -> Learner:
    """The task that transferred it is forgotten; another one transfers the second layer."""
    learner = learner_with(protect, HardSharing(), Fixed("TT"))
    learner.learn(TASKS[0])
    searching(learner, Fixed("ST"))
    learner.learn(TASKS[1])
    learner.forget("task-0")
    searching(learner, Fixed("TT"))
    return learner


def test_what_nobody_uses_is_not_frozen() -> None:
    learner = whose_first_layer_nobody_uses(Freeze())
    assert list(learner.model.versions) == ["1@0"]
    assert start_of(learner, TASKS[2]).protection.read_only == {1}
    learner.learn(TASKS[2])


def weights_of(learner: Learner, name: str) -> TaskWeights:
    route, own, layers = learner.model.routes[name], learner.model.own[name], []
    for i, transferred in enumerate(route.transfers):
        mine, shared = part_of(own, f"layer.{i}"), dict(learner.model.versions.get(f"{i}@{route.versions[i]}", {}))
        layers.append(LayerWeights(shared, mine, {}) if transferred else LayerWeights({}, {}, mine))
    return TaskWeights(tuple(layers), part_of(own, "head"))


def naive_importances(learner: Learner, task: Task, kind: FisherKind) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """By the definition, image by image and label by label, of a task that was just learned; and its shared weights."""
    configuration = Configuration.parse(learner.model.routes[task.name].configuration)
    weights = copied(weights_of(learner, task.name))
    leaves = weights.shared(configuration)
    expected = {name: torch.zeros_like(value) for name, value in leaves.items()}
    for value in leaves.values():
        value.requires_grad_(True)
    (images, labels), *_ = task.train.batches(len(task.train), device=torch.device("cpu"))
    for image, label in zip(images, labels.tolist(), strict=True):
        features = image[None]
        for block, own, transferred in zip(learner.net.blocks, weights.layers, configuration, strict=True):
            made = learner.method.sharing.weights(block, own.shared, own.factors) if transferred else own.specific
            features = block.apply(made, features)
        log_p = torch.log_softmax(learner.net.head.apply(weights.head, features)[0], dim=0)
        for k in range(task.num_classes):
            factor = float(log_p[k].detach().exp()) if kind == "exact" else float(k == label)
            gradients = torch.autograd.grad(log_p[k], list(leaves.values()), retain_graph=True)
            for name, gradient in zip(leaves, gradients, strict=True):
                expected[name] += factor * gradient**2 / len(images)
    return expected, {name: value.detach() for name, value in leaves.items()}


@pytest.mark.parametrize("sharing", SHARINGS, ids=lambda s: s.name)
@pytest.mark.parametrize("kind", ["exact", "empirical"])
def test_what_is_held_is_a_sum_over_tasks(kind: FisherKind, sharing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lasem.methods.transfer.MAX_IMAGES", 4)  # three parts, the last one incomplete
    learner = learner_with(Penalty(fisher=kind), sharing, Fixed("TS"))
    generator, elsewhere = torch.Generator().manual_seed(0), dict[str, Tensor]()
    fishers, terms = [], []
    for task in TASKS[:2]:
        learner.learn(task)
        fisher, anchor = naive_importances(learner, task, kind)
        elsewhere = elsewhere or {name: torch.randn(value.shape, generator=generator) for name, value in anchor.items()}
        terms.append(sum(float((fisher[n] * (elsewhere[n] - anchor[n]) ** 2).sum()) for n in anchor))
        fishers.append(fisher)
    needed = start_of(learner, TASKS[2]).protection.quadratic
    assert needed.importance.keys() == fishers[0].keys() == fishers[1].keys()
    for name, value in needed.importance.items():
        assert name.startswith("layer.0.")
        torch.testing.assert_close(value, fishers[0][name] + fishers[1][name], rtol=1e-4, atol=1e-7)
    assert float(needed.value(elsewhere)) == pytest.approx(sum(terms), rel=1e-4)
    assert min(terms) > 0.01 * sum(terms)  # neither is lost in the other


def test_what_was_held_of_a_layer_goes_with_the_last_task_that_shares_it() -> None:
    learner = whose_first_layer_nobody_uses(Penalty())
    problem = start_of(learner, TASKS[2])
    weights = copied(problem.weights, requires_grad=True)
    penalty = problem.penalty(weights)
    leaves = named(weights)
    pulls = torch.autograd.grad(penalty, list(leaves.values()), allow_unused=True)
    pulled = {name for name, pull in zip(leaves, pulls, strict=True) if pull is not None}
    assert pulled == {"layers.1.shared.weight", "layers.1.shared.bias"}  # layer 0 is fresh: nobody needs it anywhere
    learner.learn(TASKS[2])
    needed = start_of(learner, TASKS[3]).protection.quadratic
    for name, value in learner.model.versions["0@0"].items():
        assert torch.equal(needed.anchor[f"layer.0.shared.{name}"], value)
    for name in ("task-1", "task-2"):
        learner.forget(name)
    assert start_of(learner, TASKS[3]).protection.quadratic is None


def test_a_stronger_penalty_keeps_more() -> None:
    moved = []
    for strength in (0.0, 1e3, 1e6):
        learner = learner_with(Penalty(strength=strength))
        learner.learn(TASKS[0])
        before, needed = shared(learner), start_of(learner, TASKS[1]).protection.quadratic
        learn(learner, TASKS[1:])
        total = 0.0
        for name, value in shared(learner).items():
            layer, key = name.split("@0.")
            total += float((needed.importance[f"layer.{layer}.shared.{key}"] * (value - before[name]) ** 2).sum())
        moved.append(total)
    assert moved[0] > moved[1] > moved[2]
