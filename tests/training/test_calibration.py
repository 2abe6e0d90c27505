"""One temperature for a task's logits, and how far probabilities are from the share of right answers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from learner.fixture import assert_same_tensors, changed_index, tensors_in, tiny_net, tiny_task
from torch import Tensor

from lasem import Learner, TrainingConfig
from lasem.training.calibration import best_temperature, calibration_bins, expected_calibration_error


def drawn(sharpness: float, num: int = 400, num_classes: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Labels drawn by the softmax of some logits, and these logits multiplied."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(num, num_classes, generator=generator)
    labels = torch.multinomial(torch.softmax(logits, dim=1), 1, generator=generator)[:, 0]
    return sharpness * logits, labels


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 8.0])
def test_the_temperature_is_where_the_cross_entropy_is_least(sharpness: float) -> None:
    logits, labels = drawn(sharpness)
    found = best_temperature(logits, labels)
    tried = [0.1 * 1.005**step for step in range(1400)]
    losses = [float(F.cross_entropy(logits / temperature, labels)) for temperature in tried]
    assert found == pytest.approx(tried[losses.index(min(losses))], rel=0.01)
    assert found == pytest.approx(sharpness, rel=0.15)  # by which the labels were drawn


def test_a_few_right_answers_do_not_make_all_answers_sure() -> None:
    logits, labels = drawn(1.0)
    assert best_temperature(-logits, labels) == pytest.approx(100)  # worse than chance
    right = logits.argmax(dim=1)
    assert best_temperature(logits[:3], right[:3]) == 1
    found = best_temperature(logits, right)
    assert 0.05 < found < 0.5  # 400 of 400 are right
    assert 0.9 < torch.softmax(logits / found, dim=1).max(dim=1).values.mean() < 1


def test_the_calibration_error_is_the_one_of_its_definition() -> None:
    logits, labels = drawn(4.0, num=500)
    confidence, answers = torch.softmax(logits, dim=1).max(dim=1)
    confidence[:3] = torch.tensor([0.2, 1.0, 0.0])  # edges of bins
    expected = 0.0
    for number in range(15):
        low, high = number / 15, (number + 1) / 15
        inside = [k for k, p in enumerate(confidence.double()) if low < p <= high or (number == 0 and p == 0)]
        if inside:
            accuracy = sum(float(answers[k] == labels[k]) for k in inside) / len(inside)
            mean = sum(float(confidence[k]) for k in inside) / len(inside)
            expected += len(inside) / len(labels) * abs(accuracy - mean)
    bins = calibration_bins(confidence, answers == labels)
    assert expected_calibration_error(bins) == pytest.approx(expected, abs=1e-9)
    assert (sum(one.num_images for one in bins), sum(one.num_right for one in bins)) == (
        len(labels),
        int((answers == labels).sum()),
    )


def test_a_learned_task_answers_the_same_with_other_probabilities(tmp_path: Path) -> None:
    training = TrainingConfig(epochs=25, batch_size=5, learning_rate=0.02, schedule="constant", tolerance=0, patience=0)
    noisy = tiny_task("a", 3, num_train=30)
    labels = noisy.valid.labels.roll(2)  # some answers are wrong
    task = replace(noisy, valid=replace(noisy.valid, labels=labels), test=replace(noisy.valid, labels=labels))
    learners = [Learner(tiny_net(), training=replace(training, calibrate=on)) for on in (True, False)]
    records = [learner.learn(task) for learner in learners]
    calibrated, plain = learners
    assert records[0] == records[1]
    assert plain.info("a").temperature == 1
    temperature = calibrated.info("a").temperature
    assert temperature > 1.5
    x = task.valid.images.take(torch.arange(6))
    torch.testing.assert_close(calibrated.logits("a", x), plain.logits("a", x) / temperature, rtol=0, atol=0)
    assert calibrated.predict("a", x) == plain.predict("a", x)
    errors = [F.cross_entropy(learner.logits("a", x), labels) for learner in learners]
    assert errors[0] < errors[1]
    for learner, folder in zip(learners, (tmp_path / "calibrated", tmp_path / "plain"), strict=True):
        learner.save(folder)
    assert_same_tensors(tensors_in(tmp_path / "calibrated"), tensors_in(tmp_path / "plain"))
    again = Learner.load(tmp_path / "calibrated")
    assert torch.equal(again.logits("a", x), calibrated.logits("a", x))
    with changed_index(tmp_path / "calibrated") as index:  # as a model that was saved before there were temperatures
        for name in ("temperature", "training"):
            del index["tasks"][0][name]
    again = Learner.load(tmp_path / "calibrated")
    assert torch.equal(again.logits("a", x), plain.logits("a", x))
    again.save(tmp_path / "calibrated")
