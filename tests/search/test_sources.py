"""Earlier tasks' layers, used as they are: what is lent, and how the earlier task is found."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from learner.fixture import start_of, tiny_net, tiny_task
from training.test_kept import net_of

from lasem import Freeze, Learner, TrainingConfig
from lasem.search import AbstractSelection, Evidence, Fixed, GroupedSelection, Selected
from lasem.search.sources import explained, features, ranked, reusing, some
from lasem.search.trials import neighbours_right
from lasem.training import Plan, TaskStart

CONFIG = TrainingConfig(epochs=3, batch_size=5, augment="none")
A, B, C = (tiny_task(name, seed=seed) for seed, name in enumerate("abc"))


@dataclass(frozen=True)
class Reusing(GroupedSelection):
    """Takes what it is given of one earlier task."""

    name: ClassVar[str] = "reusing"
    source: str = "a"
    configuration: str = "SSS"

    def plan(self, start: TaskStart) -> Plan[Selected]:
        search = Fixed(self.configuration if start.sources else "all")
        space = search.space(start.net.depth, 1)
        start = replace(reusing(start, self.source) if start.sources else start, space=space)
        return (yield from search.plan(start.only(space[0])))


def learner_of(search: AbstractSelection, depth: int = 3, **settings: Any) -> Learner:
    protect = settings.pop("protect", Freeze())
    return Learner(tiny_net(depth=depth), search=search, protect=protect, training=CONFIG, seed=3, **settings)


def learn(learner: Learner, *tasks: Any) -> list[torch.Tensor]:
    """What each task answered right after it was learned."""
    answers = []
    for task in tasks:
        learner.learn(task)
        answers.append(learner.logits(task.name, task.test.images.take(torch.arange(5))))
    return answers


def weights_of(learner: Learner, name: str) -> dict[str, torch.Tensor]:
    return learner.method.plain_weights(learner.net, learner.model, name) or {}


def test_what_a_task_owns_becomes_a_version_that_another_uses_as_it_is(tmp_path: Path) -> None:
    learner = learner_of(Reusing("a", "TSS"))
    answers = learn(learner, A, B)
    learner.save(tmp_path / "model")
    learner = Learner.load(tmp_path / "model", search=Reusing("b", "TTS"))
    before, own = learner.num_parameters(), weights_of(learner, "b")
    answers += learn(learner, C)
    assert [learner.configuration(name) for name in "abc"] == ["TTT", "TTS", "TTS"]
    assert learner.model.routes["c"].versions == learner.model.routes["b"].versions == (0, 1, 0)
    made = weights_of(learner, "c")
    for layer in (0, 1):
        assert torch.equal(made[f"layer.{layer}.weight"], own[f"layer.{layer}.weight"])
    for name, answer in zip("abc", answers, strict=True):
        images = {"a": A, "b": B, "c": C}[name].test.images.take(torch.arange(5))
        assert torch.equal(learner.logits(name, images), answer)
    assert learner.num_parameters() - before == learner.num_parameters("c")
    assert [learner.method.source(learner.net, learner.model, name) for name in "abc"] == [None, "a", "b"]
    learner.save(tmp_path / "model")
    again = Learner.load(tmp_path / "model")
    assert torch.equal(again.logits("b", B.test.images.take(torch.arange(5))), answers[1])
    learner.forget("b")
    assert torch.equal(learner.logits("c", C.test.images.take(torch.arange(5))), answers[2])


def test_tasks_with_the_same_layers_are_one_source() -> None:
    learner = learner_of(Reusing("a", "TTT"))
    learn(learner, A, B)
    assert list(start_of(learner, C).sources) == ["a"]


def test_features_and_votes_are_what_loops_give() -> None:
    learner = learner_of(Reusing("a", "TSS"))
    learn(learner, A)
    start = start_of(learner, B)
    x = features(start, start.sources["a"], B.train)
    (images, _), *_ = B.train.batches(100)
    for i, block in enumerate(learner.net.blocks):
        images = block.apply(start.sources["a"].layers[i], images)
    torch.testing.assert_close(x, images.flatten(1))
    labels, queries, answers = torch.arange(9) % 3, torch.randn(7, 4), torch.arange(7) % 3
    points, right = torch.randn(9, 4), 0
    for query, answer in zip(queries, answers, strict=True):
        order = (points - query).norm(dim=1).argsort()[:5]
        right += int(torch.bincount(labels[order], minlength=3).argmax() == answer)
    assert neighbours_right(points, labels, queries, answers, 5) == pytest.approx(right / 7)


def test_explained_is_what_leaving_each_image_out_gives() -> None:
    generator = torch.Generator().manual_seed(0)
    x, labels = torch.randn(12, 4, generator=generator), torch.arange(12) % 3
    y = torch.nn.functional.one_hot(labels).double()
    best = -torch.inf
    centred = x.double() - x.double().mean(dim=0)
    variance = torch.linalg.svdvals(centred).square().mean()
    for ridge in (0.01, 0.1, 1.0, 10.0):
        errors = 0.0
        for n in range(12):
            others = torch.arange(12) != n
            # a bias without penalty: the columns and the answers of the others are centred
            a, b = x[others].double(), y[others]
            a0, b0 = a.mean(dim=0), b.mean(dim=0)
            w = torch.linalg.solve((a - a0).T @ (a - a0) + ridge * variance * torch.eye(4), (a - a0).T @ (b - b0))
            errors += float((y[n] - b0 - (x[n].double() - a0) @ w).square().sum())
        best = max(best, 1 - errors / float((y - y.mean(dim=0)).square().sum()))
    assert explained(x, labels) == pytest.approx(best, rel=1e-6)


def test_the_task_whose_classes_come_again_is_found_and_used_as_it_is() -> None:
    # patterns that a network must learn: the first task's come again, with few images
    training = TrainingConfig(epochs=8, batch_size=5, augment="none", learning_rate=5e-3)
    learner = Learner(tiny_net(depth=3), search=Evidence(), protect=Freeze(), training=training, seed=3)
    answers = learn(learner, A, B)
    again = replace(A, name="again")
    record = learner.learn(again)
    assert record.explained is not None
    assert next(iter(record.explained)) == "a"
    assert set(record.explained) == {"a", "b"}
    assert record.source in ("a", None)
    assert (record.source is None) == ("T" not in record.configuration)
    for task, answer in zip((A, B), answers, strict=True):
        assert torch.equal(learner.logits(task.name, task.test.images.take(torch.arange(5))), answer)


def test_to_own_all_layers_is_tried_whatever_the_mixture_says() -> None:
    learner, phases = learner_of(Evidence(price=1e9)), list[str]()
    learn(learner, A)
    assert learner.learn(B, on_epoch=lambda epoch, *_: phases.append(epoch.phase)).configuration == "TTT"
    tried = {phase.partition(",")[0] for phase in phases if ", step" in phase or " of 2" in phase}
    assert tried == {"TTT", "evidence 1 of 2", "evidence 2 of 2", "SSS"}


def test_what_was_used_last_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = learner_of(Reusing("a", "SSS"))
    learn(learner, A, B, C)
    start = start_of(learner, tiny_task("d", seed=4))
    assert list(start.sources) == ["a", "b", "c"]
    monkeypatch.setattr("lasem.search.sources._MOST", 2)
    assert {name for name, _ in ranked(start)} == {"b", "c"}


def test_a_pretrained_network_that_is_trained_on_reuses_too() -> None:
    net = net_of()
    learner = Learner(net, search=Evidence(), protect=Freeze(), training=replace(CONFIG, epochs=6), seed=3)
    answers = learn(learner, A, B, C)
    assert all(record for record in map(learner.configuration, "abc"))
    for task, answer in zip((A, B, C), answers, strict=True):
        assert torch.equal(learner.logits(task.name, task.test.images.take(torch.arange(5))), answer)


def test_of_many_images_a_thousand_from_everywhere_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    assert some(A.train) is A.train
    monkeypatch.setattr("lasem.search.sources._MOST_IMAGES", 5)
    few = some(A.train)
    assert len(few) <= 5
    assert torch.equal(few.labels, A.train.labels[:: -(-len(A.train) // 5)])
