"""Splits larger than what is looked at at a time: the parts together give what the whole does, or each image alone."""

import pytest
import torch
from learner.fixture import tiny_net, tiny_task
from torch import Tensor

from lasem.data import Split, TensorImages
from lasem.learner import Learner
from lasem.methods import ChannelGated
from lasem.methods.gates import decided, firing_rates, run_gated
from lasem.training import TrainingConfig, accuracy, batches_of, class_weights

CPU = torch.device("cpu")
CONFIG = TrainingConfig(epochs=2, batch_size=5, learning_rate=0.01)
TASK = tiny_task(num_classes=3, num_train=10)
"""Ten images for training: two parts of four, and one of two."""


@pytest.fixture
def parts_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lasem.training.config.EVALUATION_BATCH", 4)


@pytest.mark.usefixtures("parts_of_four")
def test_right_answers_are_counted_over_all_parts() -> None:
    answers = torch.tensor([1, 0, 1, 0, 1, 1, 1, 0, 0, 0])
    labels = torch.tensor([1, 0, 1, 0, 0, 1, 0, 1, 0, 1])  # 4, 1 and 1 right
    pixels = (255 * answers).to(torch.uint8).reshape(10, 1, 1, 1)
    split = Split(TensorImages(pixels), labels, torch.zeros(1), torch.ones(1))

    def answer(x: Tensor) -> Tensor:
        assert len(x) <= 4
        return torch.cat([0.5 - x, x - 0.5], dim=1).flatten(1)

    assert accuracy(answer, split, CPU) == 0.6


@pytest.mark.usefixtures("parts_of_four")
def test_a_learner_answers_in_parts_as_image_by_image() -> None:
    learner = Learner(tiny_net(), training=CONFIG)
    learner.learn(TASK)
    images = TASK.train.images.take(torch.arange(10))
    alone = torch.cat([learner.logits("task", image[None]) for image in images])
    torch.testing.assert_close(learner.logits("task", images), alone)
    assert len(alone.unique(dim=0)) == 10
    expected = [learner.classes("task")[row.index(max(row))] for row in alone.tolist()]
    assert learner.predict("task", images) == expected
    right = [answer == name for answer, name in zip(expected, TASK.names_of(TASK.train.labels), strict=True)]
    assert learner.accuracy("task", TASK.train) == sum(right) / 10
    assert sum(right) > 0


@pytest.mark.usefixtures("parts_of_four")
def test_gates_that_open_are_counted_over_all_parts() -> None:
    learner = Learner(tiny_net(), ChannelGated(opening=0), training=CONFIG, seed=1)
    learner.learn(TASK)
    weights = {**learner.model.shared, **learner.model.own["task"]}
    gate = decided(weights)
    opened = [torch.cat(run_gated(learner.net, weights, x, gate)[1], dim=1)[0] for x, _ in TASK.train.batches(1)]
    expected = torch.stack(opened).mean(dim=0)
    torch.testing.assert_close(torch.cat(firing_rates(learner.net, weights, TASK.train, CPU)), expected)
    mean_of_means = torch.stack([part.mean(dim=0) for part in torch.stack(opened).split(4)]).mean(dim=0)
    assert float((mean_of_means - expected).abs().max()) > 0.01


def test_class_weights_are_their_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 3, 3, 1])  # 6, 1, none and 2 of 9 in 3 classes
    split = Split(TensorImages(torch.zeros(9, 1, 1, 1)), labels, torch.zeros(1), torch.ones(1))
    expected = {0: 9 / (3 * 6), 1: 9 / 3, 3: 9 / (3 * 2)}
    balanced = TrainingConfig(class_weights="balanced", batch_size=4)
    assert class_weights(split, CONFIG) is None
    total = 0.0
    for batch in batches_of(split, balanced, "t", CPU, generator):
        logits = torch.randn(len(batch.x), 4, generator=generator)
        each = [
            -expected[label] * (row.double().exp() / row.double().exp().sum())[label].log()
            for row, label in zip(logits, batch.labels.tolist(), strict=True)
        ]
        torch.testing.assert_close(batch.cross_entropy(logits).double(), sum(each) / len(each))
        assert batch.weights is not None
        total += float(batch.weights.sum())
    assert total == pytest.approx(9)  # all classes together count as before, and each the same
