"""A growing model of what only Python can give it: a network that is code, tasks that are in memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lasem import Branch, Fixed, GrowingModel, Learner, TrainingConfig
from lasem.errors import ConfigError, ShapeError, StorageError, TaskError
from lasem.nets import CutNet, ImageShape, cut

from .fixture import changed_index, files_in, tiny_net, tiny_task
from .images import Watching, small_model, write_digits

QUICK = TrainingConfig(epochs=2, batch_size=5)


def test_a_function_that_cuts_a_module_is_asked_every_time(tmp_path: Path, lasem: Any) -> None:
    images = write_digits(tmp_path / "images", (0, 1), count=4)
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 3, 3), nn.ReLU())

    def cut_for(shape: ImageShape) -> CutNet:
        return cut(module, image_shape=shape)

    def model(net: Any = cut_for) -> GrowingModel:
        return GrowingModel(tmp_path / "model", net=net, search=Fixed("all"), training=QUICK)

    grown = model()
    for name in ("a", "b"):
        grown.learn(name, images)
    for again in (grown, model(), model(cut_for((1, 8, 8)))):
        assert [task.name for task in again.show().tasks] == ["a", "b"]
        assert (len(list(again.predict("a", [images]))), again.evaluate("b", images).num_images) == (8, 8)
    with pytest.raises(ConfigError, match=r"got CutBlock.*onnx or torch"):
        grown.export("a", "safetensors", tmp_path / "taken")
    with pytest.raises(StorageError, match="another network"):
        model(lambda shape: cut(module[:2], image_shape=shape)).show()
    assert "in Python: lasem.GrowingModel(folder, net=...)" in lasem("show", str(tmp_path / "model"), code=2).err


def test_a_task_in_memory_is_learned_as_by_a_learner(tmp_path: Path) -> None:
    given: dict[str, Any] = {"net": tiny_net(shape=(2, 6, 4)), "search": Fixed("TS"), "training": QUICK, "seed": 3}
    first, second = (tiny_task(name, shape=(2, 6, 4), seed=seed) for seed, name in enumerate(("a", "b")))
    learner = Learner(**given, protect=Branch())
    model = GrowingModel(tmp_path / "model", **given)
    for task in (first, second):
        learner.learn(task)
        assert model.learn(task.name, task).classes == task.classes
    images = torch.rand(3, 2, 6, 4)
    for name in ("a", "b"):
        assert torch.equal(Learner.load(tmp_path / "model").logits(name, images), learner.logits(name, images))
    before = files_in(tmp_path)
    for call, error, told in (
        (lambda: model.learn("a", first), TaskError, "learned already"),
        (lambda: model.learn("c", tiny_task()), ShapeError, r"this network takes \(2, 6, 4\)"),
        (lambda: model.learn("c", first, test=tmp_path), ConfigError, "its own splits"),
        (lambda: GrowingModel(tmp_path / "new", image_size=8).learn("c", first), ConfigError, "taken as it is"),
        (lambda: GrowingModel(tmp_path / "new", net=tiny_net()).learn("c", first), ShapeError, "takes"),
        (lambda: list(model.predict("a", [tmp_path])), ConfigError, "Learner.load"),
    ):
        with pytest.raises(error, match=told):
            call()
    assert files_in(tmp_path) == before


def test_12_bits_in_16_are_told_of(tmp_path: Path) -> None:
    for name, most in (("twelve", 2**12), ("sixteen", 2**16)):
        for number in range(4):
            folder = tmp_path / name / f"class-{number % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, most, (8, 8), dtype=np.uint16)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    told: list[str] = []
    for name in ("sixteen", "twelve"):
        small_model(tmp_path / "model", training=QUICK).learn(name, tmp_path / name, observer=Watching(told))
    (note,) = [line for line in told if "brightest" in line]
    assert "'twelve' is 15 of 255" in note
    assert "below 4096" in note


def test_a_note_says_how_images_are_changed_and_models_of_earlier_versions_go_on_without(tmp_path: Path) -> None:
    shape, notes = (3, 17, 17), list[str]()
    model = GrowingModel(tmp_path / "model", net=tiny_net(shape=shape), training=TrainingConfig(epochs=1))
    model.learn("a", tiny_task("a", shape=shape), observer=Watching(notes))
    assert any("changed at random, by preset photo: crops, mirror images" in note for note in notes)
    with changed_index(tmp_path / "model") as index:  # as of a model that was saved before there was augmentation
        del index["training"]["augment"]
    notes.clear()
    GrowingModel(tmp_path / "model").learn("b", tiny_task("b", shape=shape), observer=Watching(notes))
    assert notes
    assert not any("at random" in note for note in notes)
    learner = Learner.load(tmp_path / "model")
    assert {learner.training.augment, *(learner.info(name).training.augment for name in "ab")} == {"none"}
