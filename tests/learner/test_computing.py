"""Where a learner computes and how precisely: every learner, every method."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lasem.data import placing
from lasem.data.placing import PlacedImages
from lasem.errors import StorageError
from lasem.learner import GrowingModel, Learner, plain_network
from lasem.learner.model_folder import sealed
from lasem.methods import METHODS, AbstractMethod
from lasem.search import DARTS, EM, AbstractSelection, Exhaustive
from lasem.sharing import Deconvolution
from lasem.training import TrainingConfig, TrainingState

from .fixture import assert_same_tensors, tensors_in, tiny_net, tiny_task
from .images import small_model, write_digits

IMAGES = torch.rand(7, 1, 6, 6, generator=torch.Generator().manual_seed(3))
CPU = torch.device("cpu")
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)


def learner_of(search: AbstractSelection | None = None, **training: Any) -> Learner:
    config = TrainingConfig(**{"epochs": 2, "batch_size": 5, **training})
    return Learner(tiny_net(), search=search or EM(first_task="search"), sharing=Deconvolution(), training=config)


def baseline_of(method: type[AbstractMethod], **training: Any) -> Learner:
    config = TrainingConfig(**{**method.training, "epochs": 2, "batch_size": 5, **training})
    return Learner(tiny_net(), method(), training=config)


def pretend(patch: pytest.MonkeyPatch) -> list[weakref.ref[Tensor]]:
    """Let the CPU be a device with memory of its own; gives the images that are put there."""
    placed: list[weakref.ref[Tensor]] = []
    plain = PlacedImages.__init__

    def init(self: PlacedImages, tensor: Tensor) -> None:
        placed.append(weakref.ref(tensor))
        plain(self, tensor)

    patch.setattr(placing, "free_bytes", lambda device: 10**9)
    patch.setattr(PlacedImages, "__init__", init)
    return placed


@pytest.mark.parametrize(
    "search",
    [DARTS(first_task="search"), Exhaustive(first_task="search")],
    ids=lambda search: search.name,
)
def test_images_on_the_device_change_no_bit(
    search: AbstractSelection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learners = [learner_of(search) for _ in range(2)]
    records = []
    for number, learner in enumerate(learners):
        with monkeypatch.context() as patch:
            placed = pretend(patch) if number else []
            records.append([learner.learn(tiny_task(f"t{k}", seed=k)) for k in range(2)])
        learner.save(tmp_path / str(number))
        assert len(placed) == (4 if number else 0)  # training and validation of two tasks, each once
    gc.collect()
    assert all(tensor() is None for tensor in placed)  # and given back
    assert records[0] == records[1]
    assert_same_tensors(*(tensors_in(tmp_path / name) for name in "01"))


@every_method
def test_images_on_the_device_change_no_bit_of_any_method(
    method: type[AbstractMethod], monkeypatch: pytest.MonkeyPatch
) -> None:
    learners = [baseline_of(method, epochs=1) for _ in range(2)]
    for number, learner in enumerate(learners):
        with monkeypatch.context() as patch:
            placed = pretend(patch) if number else []
            for k in range(2):
                learner.learn(tiny_task(f"t{k}", seed=k))
        assert len(placed) == (4 if number else 0)
    assert_same_tensors(dict(learners[0].model.shared), dict(learners[1].model.shared))
    for name in ("t0", "t1"):
        assert_same_tensors(dict(learners[0].model.own[name]), dict(learners[1].model.own[name]))
    assert_same_tensors(dict(learners[0].model.memory), dict(learners[1].model.memory))


@every_method
def test_every_method_learns_in_bf16(method: type[AbstractMethod]) -> None:
    learners = [baseline_of(method, precision=precision) for precision in ("float32", "bf16", "bf16")]
    tasks = [tiny_task(f"t{k}", seed=k) for k in range(2)]
    for learner in learners:
        for task in tasks:
            learner.learn(task)
    plain, rounded, again = (
        [learner.predict(t.name, IMAGES, probabilities=True) for t in tasks] for learner in learners
    )
    for exact, close, same in zip(plain, rounded, again, strict=True):
        assert close.dtype == torch.float32
        assert torch.equal(close, same)
        assert (close - exact).abs().max() < 0.1  # after four epochs of a dozen roundings
    assert any(not torch.equal(exact, close) for exact, close in zip(plain, rounded, strict=True))
    model = learners[1].model
    kept = [*model.shared.values(), *model.memory.values(), *(t for own in model.own.values() for t in own.values())]
    assert torch.bfloat16 not in {value.dtype for value in kept}


def test_a_learner_answers_as_it_was_trained(tmp_path: Path) -> None:
    learner, task = learner_of(precision="bf16"), tiny_task()
    record = learner.learn(task)
    assert record.peak_accuracy == learner.accuracy(task.name, task.test)
    answers = learner.logits(task.name, IMAGES)
    assert answers.dtype == torch.float32
    learner.save(tmp_path / "model")
    loaded = Learner.load(tmp_path / "model")
    assert loaded.training.precision == "bf16"
    assert torch.equal(loaded.logits(task.name, IMAGES), answers)
    exact = Learner.load(tmp_path / "model", training=TrainingConfig()).logits(task.name, IMAGES)
    assert not torch.equal(exact, answers)
    torch.testing.assert_close(exact, answers, rtol=0.05, atol=0.02)
    with torch.no_grad():  # what is exported computes in float32
        torch.testing.assert_close(plain_network(loaded, task.name)(IMAGES), exact)
    assert {value.dtype for value in tensors_in(tmp_path / "model").values()} == {torch.float32}


def test_a_growing_model_answers_as_it_was_trained(tmp_path: Path) -> None:
    images = write_digits(tmp_path / "images", (0, 1))
    precise = TrainingConfig(epochs=3, batch_size=5, learning_rate=0.01, precision="bf16")
    model = small_model(tmp_path / "model", training=precise)
    model.learn("low", images)
    learner = Learner.load(tmp_path / "model")
    asked = GrowingModel(tmp_path / "model")  # it is not told how the model was trained
    assert asked._reader().training.precision == "bf16"
    files = sorted(images.rglob("*.png"))
    answers = [p.probabilities[0] for p in asked.predict("low", files)]
    assert answers == [
        p.probabilities[0] for p in small_model(tmp_path / "model", training=precise).predict("low", files)
    ]
    float32 = GrowingModel(tmp_path / "model", training=TrainingConfig())
    assert answers != [p.probabilities[0] for p in float32.predict("low", files)]
    assert learner.training.precision == "bf16"
    with pytest.raises(StorageError):  # no model at all: told as before
        list(GrowingModel(tmp_path / "images").predict("low", files))


@pytest.mark.parametrize("kind", ["learner", "gated", "hat"])
def test_an_interrupted_task_goes_on_to_the_same_bits(kind: str) -> None:
    def fresh() -> Learner:
        precise = {"precision": "bf16", "epochs": 3}
        return learner_of(**precise) if kind == "learner" else baseline_of(METHODS[kind], **precise)

    whole, resumed, states = fresh(), fresh(), list[TrainingState]()
    record = whole.learn(tiny_task(), on_epoch=lambda epoch, timing, state: states.append(state()))
    assert resumed.learn(tiny_task(), resume_from=states[0]) == record
    assert torch.equal(*(learner.logits("task", IMAGES) for learner in (whole, resumed)))


def test_a_model_of_before_this_setting_is_a_float32_one(tmp_path: Path) -> None:
    images = write_digits(tmp_path / "images", (0, 1))
    model = small_model(tmp_path / "model")
    model.learn("low", images)
    index = tmp_path / "model" / "config.json"
    config = {key: value for key, value in json.loads(index.read_text()).items() if key != "checksum"}
    for name in ("precision", "images_share"):
        del config["training"][name]
    index.write_text(sealed(config))
    stored = model.settings()
    assert stored is not None
    assert stored["training"]["precision"] == "float32"
    small_model(tmp_path / "model").learn("again", images)  # with settings that say so explicitly
    assert Learner.load(tmp_path / "model").training.precision == "float32"
