"""How precisely a learner computes, which its folder remembers; what every learner must do is in the contract."""

from pathlib import Path

import pytest
import torch

from lasem import Deconvolution, TrainingConfig
from lasem.errors import StorageError
from lasem.learner import GrowingModel, Learner, plain_network

from .fixture import changed_index, tensors_in, tiny_net, tiny_task
from .images import small_model, write_digits

IMAGES = torch.rand(7, 1, 6, 6, generator=torch.Generator().manual_seed(3))


def test_a_learner_answers_as_it_was_trained(tmp_path: Path) -> None:
    precise = TrainingConfig(epochs=2, batch_size=5, precision="bf16")
    learner, task = Learner(tiny_net(), sharing=Deconvolution(), training=precise), tiny_task()
    learner.learn(task)
    answers = learner.logits(task.name, IMAGES)
    learner.save(tmp_path / "model")
    exact = Learner.load(tmp_path / "model", training=TrainingConfig()).logits(task.name, IMAGES)
    assert not torch.equal(exact, answers)
    torch.testing.assert_close(exact, answers, rtol=0.05, atol=0.02)
    with torch.no_grad():  # what is exported computes in float32
        torch.testing.assert_close(plain_network(learner, task.name)(IMAGES), exact)
    assert {value.dtype for value in tensors_in(tmp_path / "model").values()} == {torch.float32}


def test_a_growing_model_answers_as_it_was_trained(tmp_path: Path) -> None:
    images = write_digits(tmp_path / "images", (0, 1))
    precise = TrainingConfig(epochs=3, batch_size=5, learning_rate=0.01, precision="bf16")
    small_model(tmp_path / "model", training=precise).learn("low", images)

    def answers(model: GrowingModel) -> list[float]:
        return [p.probabilities[0] for p in model.predict("low", [images])]

    asked = answers(GrowingModel(tmp_path / "model"))  # it is not told how the model was trained
    assert asked == answers(small_model(tmp_path / "model", training=precise))
    assert Learner.load(tmp_path / "model").training.precision == "bf16"
    with pytest.raises(StorageError):  # no model at all: told as before
        answers(GrowingModel(tmp_path / "images"))


def test_a_model_of_before_this_setting_is_a_float32_one(tmp_path: Path) -> None:
    images = write_digits(tmp_path / "images", (0, 1))
    model = small_model(tmp_path / "model")
    model.learn("low", images)
    with changed_index(tmp_path / "model") as index:
        for name in ("precision", "images_share"):
            del index["training"][name]
    stored = model.settings()
    assert stored["training"]["precision"] == "float32"
    small_model(tmp_path / "model").learn("again", images)  # with settings that say so explicitly
    assert Learner.load(tmp_path / "model").training.precision == "float32"
