"""Outputs of frozen layers that are kept, next to the same training without them."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from learner.fixture import tiny_task
from sklearn.linear_model import LogisticRegression
from torch import nn

from lasem import Fixed, HardSharing, Learner, TrainingConfig
from lasem.data import Split
from lasem.nets import cut
from lasem.search import AbstractSearch, Mixture, PrefixSearch
from lasem.training import kept
from lasem.training.kept import fit_head

SHAPE = (1, 6, 6)


def net_of(**settings: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2),
        )  # fmt: skip
    return cut(module, [("0", "1"), "3", "6"], image_shape=SHAPE, statistics="pretrained", **settings)


def learner_of(configuration: str, **training: Any) -> Learner:
    config = TrainingConfig(
        **{"epochs": 4, "batch_size": 5, "learning_rate": 5e-4, "steps": (), "refit": False, **training}
    )
    return Learner(net_of(), sharing=HardSharing(train_shared=False), search=Fixed(configuration), training=config)


@pytest.mark.parametrize("configuration", ["TTS", "TSS", "SSS", "TST"])
def test_training_on_kept_outputs_is_training_on_images(configuration: str, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, slow = learner_of(configuration), learner_of(configuration)
    records = learner.learn(tiny_task("a"))
    monkeypatch.setattr(kept, "_without_frozen", lambda start: start)
    assert slow.learn(tiny_task("a")) == records
    for name, value in slow.model.own["a"].items():
        torch.testing.assert_close(learner.model.own["a"][name], value, rtol=1e-4, atol=1e-6)


@final
@dataclass(frozen=True)
class Commits(AbstractSearch[torch.Tensor]):
    """Trains all configurations alike, and one alone after two epochs."""

    position: int
    first_task: str = "search"
    name: ClassVar[str] = "commits"

    def init(self, num_configurations: int) -> torch.Tensor:
        return torch.full((num_configurations,), 1 / num_configurations)

    def step(self, state: torch.Tensor, log_likelihood: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return state, state

    def best(self, state: torch.Tensor) -> int:
        return self.position

    def commits(self, state: torch.Tensor, epoch: int, num_epochs: int) -> bool:
        return epoch == 2


def searching(position: int, **training: Any) -> Learner:
    config = TrainingConfig(**{"epochs": 5, "batch_size": 5, "learning_rate": 5e-4, "tolerance": 1.0, **training})
    return Learner(
        net_of(), sharing=HardSharing(train_shared=False), search=Commits(position=position), training=config
    )


@pytest.mark.parametrize("position", range(8))
def test_after_a_search_kept_outputs_train_as_images_do(position: int, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, slow, sizes = searching(position), searching(position), list[int]()
    real = Mixture.features

    def features(mixture: Mixture, *arguments: Any, **named: Any) -> torch.Tensor:
        sizes.append(mixture.net.depth)
        return real(mixture, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Mixture, "features", features)
        record = learner.learn(tiny_task("a"))
    assert record.commit_epoch == 3
    num_frozen = len(record.configuration) - len(record.configuration.lstrip("T"))
    assert min(sizes) == max(1, 3 - num_frozen)
    monkeypatch.setattr(kept, "_without_frozen", lambda start: start)
    assert slow.learn(tiny_task("a")) == record
    for name, value in slow.model.own["a"].items():
        torch.testing.assert_close(learner.model.own["a"][name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("epoch", range(4))
def test_after_a_search_that_goes_on_the_bits_are_the_same(epoch: int) -> None:
    whole, states = searching(6, augment="shift", views=3), list[Any]()
    whole.learn(tiny_task("a"), on_epoch=lambda *seen: states.append(seen[2]()))
    assert whole.configuration("a")[0] == "T"
    again = searching(6, augment="shift", views=3)
    again.learn(tiny_task("a"), resume_from=states[epoch])
    for name, value in whole.model.own["a"].items():
        assert torch.equal(again.model.own["a"][name], value)


@pytest.mark.parametrize("refit", [False, True])
def test_the_likelihood_of_the_validation_images_chooses_a_step(refit: bool) -> None:
    steps, phases = (1e-9, 2.0, 0.4), list[str]()
    learner, task = learner_of("TTS", steps=steps, epochs=12, refit=refit), tiny_task("a")
    record = learner.learn(task, on_epoch=lambda epoch, *_: phases.append(epoch.phase))
    short = [learner_of("TTS", learning_rate=step * 5e-4, epochs=2) for step in steps]
    records = [other.learn(task) for other in short]
    likelihoods = []
    for other in short:  # answers are at the temperature that suits the validation images
        logits = other.logits("a", task.valid.images.take(torch.arange(len(task.valid))))
        likelihoods.append(-float(F.cross_entropy(logits, task.valid.labels)))
    best = int(np.argmax(likelihoods))
    last = "all images" if refit else ""
    assert list(dict.fromkeys(phases)) == ["step 5e-13", "step 1e-03", "step 2e-04", last]
    assert record.num_epochs == len(phases) == 3 * 2 + 6
    if refit:
        assert record.valid_accuracy == records[best].valid_accuracy
        task = replace(task, train=task.train.joined(task.valid))
    alone = learner_of("TTS", learning_rate=steps[best] * 5e-4, epochs=6, tolerance=2.0 * (not refit))
    alone.learn(task)
    for name, value in alone.model.own["a"].items():
        torch.testing.assert_close(learner.model.own["a"][name], value, rtol=0, atol=0.05 * refit)


def test_a_head_is_fitted_to_all_images_with_the_penalty_that_the_validation_images_chose() -> None:
    learner, task = learner_of("all", refit=True), tiny_task("a")
    record = learner.learn(task)
    net = learner.net
    train, valid = (features(net, split) for split in (task.train, task.valid))
    labels = torch.cat([task.train.labels, task.valid.labels])
    _, _, strength = fit_head(train, task.train.labels, valid, task.valid.labels, 2, TrainingConfig())
    x = torch.cat([train, valid])
    head, _, _ = fit_head(x, labels, x, labels, 2, TrainingConfig(), (strength,))
    torch.testing.assert_close(learner.model.own["a"]["head.weight.0"], head["weight.0"], rtol=1e-3, atol=1e-4)
    assert record.valid_accuracy == learner_of("all").learn(task).valid_accuracy


def features(net: Any, split: Split) -> torch.Tensor:
    (x, _), *_ = split.batches(len(split))
    for block in net.blocks:
        x = block.apply({}, x)
    return x.flatten(1)


def test_where_all_is_transferred_the_head_is_fitted_and_no_step_is_taken() -> None:
    learner, seen = learner_of("all"), list[Any]()
    record = learner.learn(tiny_task("a"), on_epoch=lambda epoch, *_: seen.append(epoch))
    assert (record.configuration, record.num_epochs, record.parameters_added) == ("TTT", 1, 8 * 2 + 2)
    assert set(learner.model.own["a"]) == {"head.weight.0", "head.bias.0"}
    assert len(seen) == 1
    assert 0 < seen[0].loss < np.log(2)
    before = learner.logits("a", tiny_task("a").test.images.take(torch.arange(4)))
    learner.learn(tiny_task("b", seed=1))
    assert torch.equal(before, learner.logits("a", tiny_task("a").test.images.take(torch.arange(4))))


@pytest.mark.parametrize("configuration", ["all", "TTS"])
def test_views_are_the_same_when_learning_goes_on(configuration: str) -> None:
    whole, states = learner_of(configuration, augment="shift", views=3), list[Any]()
    whole.learn(tiny_task("a"), on_epoch=lambda epoch, timing, state: states.append(state()))
    again = learner_of(configuration, augment="shift", views=3)
    again.learn(tiny_task("a"), resume_from=states[0])
    plain = learner_of(configuration)
    plain.learn(tiny_task("a"))
    for name, value in whole.model.own["a"].items():
        assert torch.equal(again.model.own["a"][name], value)
        assert not torch.equal(plain.model.own["a"][name], value)


def test_mixed_images_pass_all_layers_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, slow = (learner_of("all", mix="mixup", augment="none") for _ in range(2))
    record = learner.learn(tiny_task("a"))
    monkeypatch.setattr(kept, "_without_frozen", lambda start: start)
    assert slow.learn(tiny_task("a")) == record
    assert record.num_epochs == 4
    for name, value in slow.model.own["a"].items():
        assert torch.equal(learner.model.own["a"][name], value)


def test_outputs_that_are_large_wait_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = learner_of("TTS")
    learner.learn(tiny_task("a"))
    monkeypatch.setattr(kept, "_IN_MEMORY", 0)
    on_disk = learner_of("TTS")
    on_disk.learn(tiny_task("a"))
    for name, value in learner.model.own["a"].items():
        assert torch.equal(on_disk.model.own["a"][name], value)


def test_searches_of_whole_configurations_use_it() -> None:
    learner = Learner(net_of(), sharing=HardSharing(train_shared=False), search=PrefixSearch(first_task="search"))
    learner.learn(tiny_task("a"), training=TrainingConfig(epochs=1))
    assert learner.configuration("a") in ("TTT", "TTS", "TSS", "SSS")


@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_head_is_logistic_regression_on_standardised_features(num_classes: int) -> None:
    source = torch.Generator().manual_seed(0)
    x, labels = (
        torch.randn(60, 5, generator=source) * torch.tensor([1, 2, 3, 0, 9.0]) + 4,
        torch.arange(60) % num_classes,
    )
    x = x + labels[:, None]
    head, loss, _ = fit_head(x, labels, x, labels, num_classes, TrainingConfig())
    found = F.linear(x, head["weight.0"], head["bias.0"])
    deviation = x.std(0, correction=0)
    z = ((x - x.mean(0)) / deviation.clamp(min=0.5 * float(deviation.square().mean().sqrt()))).numpy()
    fits = [LogisticRegression(C=c, max_iter=1000).fit(z, labels.numpy()) for c in (0.01, 0.1, 1.0)]
    best = max(fits, key=lambda fit: fit.score(z, labels.numpy()))
    np.testing.assert_allclose(torch.softmax(found, dim=1).numpy(), best.predict_proba(z), atol=1e-4)
    assert loss == pytest.approx(float(F.cross_entropy(found, labels)))


def test_a_class_without_training_images_is_never_answered() -> None:
    x, labels = torch.eye(4).repeat(3, 1), torch.tensor([0, 1, 3, 1]).repeat(3)
    head, _, _ = fit_head(x, labels, x, labels, 4, TrainingConfig(class_weights="balanced"))
    assert 2 not in F.linear(x, head["weight.0"], head["bias.0"]).argmax(dim=1)
