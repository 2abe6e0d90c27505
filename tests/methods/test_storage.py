"""A baseline's folder from a stranger or from an earlier lasem, as tests/learner/test_hostile.py has the learner's."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzz import mutations
from learner.fixture import GREY, files_in, memory_grows_by_less_than, tiny_net, tiny_task
from learner.test_hostile import change, header, index_of

from lasem.errors import StorageError
from lasem.files import checksum
from lasem.learner.model_files import sealed
from lasem.methods import EWC, BaselineLearner
from lasem.training import TrainingConfig

QUICK = TrainingConfig(epochs=1, batch_size=5)
FILES = ["tasks/a/task.json", "tasks/a/weights-*", "shared-*", "memory-*", "config.json"]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("good") / "model"
    learner = BaselineLearner(tiny_net(), EWC(), training=QUICK)
    learner.learn(tiny_task("a"))
    learner.learn(tiny_task("b"))
    learner.save(place)
    return place


@pytest.fixture
def model(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "model"))


@pytest.mark.parametrize("name", ["tasks", "tasks/a", *FILES])
def test_a_link_out_of_the_folder_is_not_followed(name: str, model: Path, tmp_path: Path) -> None:
    (path,) = model.glob(name)
    outside = tmp_path / "outside"
    path.rename(outside)
    path.symlink_to(outside)
    before = files_in(outside) if outside.is_dir() else outside.read_bytes()
    with pytest.raises(StorageError, match="a symbolic link leads out of it"):
        BaselineLearner.load(model)
    assert (files_in(outside) if outside.is_dir() else outside.read_bytes()) == before


def test_nothing_is_written_or_removed_through_a_link(model: Path, tmp_path: Path) -> None:
    learner = BaselineLearner.load(model)
    learner.learn(tiny_task("c"))
    outside = tmp_path / "outside"
    shutil.copytree(model / "tasks/a", outside)
    (outside / "weights-0123456789abcdef.safetensors").write_bytes(b"of another model")
    kept = files_in(outside)
    for name in ("c", "a"):
        shutil.rmtree(model / "tasks" / name, ignore_errors=True)
        (model / "tasks" / name).symlink_to(outside)
        with pytest.raises(StorageError, match="a symbolic link leads out of it"):
            learner.save(model)
        assert files_in(outside) == kept
    (tmp_path / "linked").symlink_to(tmp_path / "new")  # the folder itself may be a link
    (tmp_path / "new").mkdir()
    learner.save(tmp_path / "linked")
    assert BaselineLearner.load(tmp_path / "linked").task_names == ("a", "b", "c")


@pytest.mark.parametrize("name", FILES)
def test_a_file_larger_than_it_was_is_not_read(name: str, model: Path) -> None:
    """A terabyte that takes no place on the disk."""
    (path,) = model.glob(name)
    with path.open("r+b") as file:
        file.truncate(10**12)
    with pytest.raises(StorageError, match="Expected at most"):
        BaselineLearner.load(model)
    if name == "config.json":
        with pytest.raises(StorageError, match="Expected at most"):
            BaselineLearner(tiny_net(), EWC()).save(model)


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_is_no_file(name: str, model: Path) -> None:
    (path,) = model.glob(name)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StorageError, match="Expected a file at"):
        BaselineLearner.load(model)


def test_an_index_of_nested_lists_and_one_that_was_changed(model: Path) -> None:
    text = (model / "config.json").read_text()
    (model / "config.json").write_text(text.replace('"epochs": 1,', '"epochs": 7,'))
    for ask in (lambda: BaselineLearner.load(model), lambda: BaselineLearner(tiny_net(), EWC()).save(model)):
        with pytest.raises(StorageError, match=r"config\.json has changed since it was saved"):
            ask()
    (model / "config.json").write_text("[" * 10**6)
    with pytest.raises(StorageError, match="damaged"):
        BaselineLearner.load(model)


@pytest.mark.parametrize(
    "changed",
    [
        change(("format_version",), 3),
        change(("net", "image_shape"), [1, 10**6, 10**6]),
        change(("net", "channels"), [10**15, 4]),
        change(("method", "name"), "os.system"),
        change(("seed",), -1),
        change(("shared", "file"), "/etc/passwd"),
        change(("shared", "bytes"), 10),
        change(("shared", "bytes"), "x"),
        change(("tasks", 0, "name"), "../a"),
        change(("tasks", 0, "weights", "file"), "../../shared-0123456789abcdef.safetensors"),
        change(("tasks", 0), {"name": "a"}),
        lambda config: config["tasks"].append(config["tasks"][0]),
    ],
    ids=range(12),
)
def test_an_index_beyond_measure_is_refused(changed: Callable[[dict[str, Any]], None], model: Path) -> None:
    config = index_of(model)
    changed(config)
    (model / "config.json").write_text(sealed(config))
    with pytest.raises(StorageError):
        BaselineLearner.load(model)


@pytest.mark.parametrize(
    "data",
    [
        (10**12).to_bytes(8, "little"),
        (2**64 - 1).to_bytes(8, "little") + b"{}",
        header({"x": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}),
        b"",
    ],
    ids=range(4),
)
def test_a_header_that_claims_a_terabyte(data: bytes, model: Path) -> None:
    config = index_of(model)
    file = f"shared-{checksum(data)[:16]}.safetensors"
    (model / file).write_bytes(data)
    config["shared"] = {"file": file, "checksum": checksum(data), "bytes": len(data)}
    (model / "config.json").write_text(sealed(config))
    with memory_grows_by_less_than(200), pytest.raises(StorageError):
        BaselineLearner.load(model)


def test_whatever_an_index_says_it_is_a_model_or_an_error_of_storage(model: Path) -> None:
    config, answered = index_of(model), 0
    for number in range(100):
        (model / "config.json").write_text(sealed(mutations.json_of(config, random.Random(number))))
        try:
            BaselineLearner.load(model).task_names  # noqa: B018
            answered += 1
        except StorageError:
            pass
    assert 0 < answered < 100


def test_a_folder_that_was_written_before_is_read_and_grows_on(model: Path, tmp_path: Path) -> None:
    """Without a checksum of the index and without the files' sizes."""
    images = torch.rand(3, *GREY, generator=torch.Generator().manual_seed(0))
    new = BaselineLearner.load(model)
    config = index_of(model)
    for entry in (config["shared"], config["memory"], *(task["weights"] for task in config["tasks"])):
        del entry["bytes"]
    (model / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    old = BaselineLearner.load(model)
    for name in ("a", "b"):
        assert torch.equal(old.logits(name, images), new.logits(name, images))
    for learner, place in ((old, model), (new, tmp_path / "new")):
        learner.learn(tiny_task("c", seed=1))
        learner.save(place)
    assert files_in(model) == files_in(tmp_path / "new")
