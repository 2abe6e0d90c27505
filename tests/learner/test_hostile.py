"""A model's folder from a stranger: nothing leads out of it, and nothing takes memory that is not there to take."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lasem.errors import LasemError, StorageError
from lasem.files import checksum
from lasem.learner import GrowingModel, Learner
from lasem.learner.model_files import sealed
from lasem.training import TrainingConfig

from .fixture import files_in, memory_grows_by_less_than, tiny_net, tiny_task

QUICK = TrainingConfig(epochs=1, batch_size=5)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("good") / "model"
    learner = Learner(tiny_net(), training=QUICK)
    learner.learn(tiny_task("a"))
    learner.learn(tiny_task("b"))
    learner.save(place)
    return place


@pytest.fixture
def model(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "model"))


def index_of(model: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((model / "config.json").read_text())
    del config["checksum"]
    return config


def replace_weights(model: Path, data: bytes) -> None:
    """Give task a other weights, with every checksum right."""
    (old,) = (model / "tasks/a").glob("task-*.json")
    description = json.loads(old.read_text()) | {"weights": checksum(data)}
    text = json.dumps(description).encode()
    (model / f"tasks/a/weights-{checksum(data)[:16]}.safetensors").write_bytes(data)
    (model / f"tasks/a/task-{checksum(text)[:16]}.json").write_bytes(text)
    config = index_of(model)
    config["tasks"][0] |= {"file": f"task-{checksum(text)[:16]}.json", "checksum": checksum(text)}
    (model / "config.json").write_text(sealed(config))


def header(entry: Any) -> bytes:
    text = json.dumps(entry).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "data",
    [
        (10**12).to_bytes(8, "little"),
        (2**64 - 1).to_bytes(8, "little") + b"{}",
        header({"head.weight.0": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}),
        header({"head.weight.0": {"dtype": "F32", "shape": [2**40, 0], "data_offsets": [0, 0]}}),
        header({"head.weight.0": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}) + b"x",
        header({}),
        header([]),
        b"",
    ],
    ids=range(8),
)
def test_a_header_that_claims_a_terabyte(data: bytes, model: Path) -> None:
    replace_weights(model, data)
    with memory_grows_by_less_than(200), pytest.raises(StorageError):
        Learner.load(model)


def test_memory_that_was_taken_and_given_back_is_seen() -> None:
    torch.ones(24 << 20)  # 96 MiB: an earlier peak
    with memory_grows_by_less_than(32):
        torch.ones(2 << 20)
    with pytest.raises(AssertionError), memory_grows_by_less_than(32):
        torch.ones(16 << 20)


def test_a_file_larger_than_the_network_allows_is_not_read(model: Path) -> None:
    """A terabyte that takes no place on the disk."""
    for pattern, words in (("tasks/a/weights-*", "by the sizes of the network"), ("shared-*", "by the sizes of the")):
        (path,) = model.glob(pattern)
        kept = path.read_bytes()
        with path.open("r+b") as file:
            file.truncate(10**12)
        with pytest.raises(StorageError, match=words):
            Learner.load(model)
        path.write_bytes(kept)
    with (model / "config.json").open("r+b") as file:
        file.truncate(10**12)
    with pytest.raises(StorageError, match="Expected at most"):
        Learner.load(model)
    with pytest.raises(StorageError, match="Expected at most"):
        Learner(tiny_net()).save(model)


@pytest.mark.parametrize("name", ["tasks/a", "tasks", "tasks/a/task-*", "tasks/a/weights-*", "shared-*", "config.json"])
def test_a_link_out_of_the_folder_is_not_followed(name: str, model: Path, tmp_path: Path) -> None:
    (path,) = model.glob(name)
    outside = tmp_path / "outside"
    path.rename(outside)
    path.symlink_to(outside)
    before = files_in(outside) if outside.is_dir() else outside.read_bytes()
    with pytest.raises(StorageError, match="a symbolic link leads out of it"):
        Learner.load(model)
    assert (files_in(outside) if outside.is_dir() else outside.read_bytes()) == before


def test_nothing_is_written_or_removed_through_a_link(good: Path, model: Path, tmp_path: Path) -> None:
    learner = Learner.load(model)
    outside = tmp_path / "outside"
    shutil.copytree(model / "tasks/a", outside)
    kept = files_in(outside)
    learner.learn(tiny_task("c"))
    (model / "tasks/c").symlink_to(outside)
    with pytest.raises(StorageError, match="a symbolic link leads out of it"):
        learner.save(model)
    (model / "tasks/c").unlink()
    (model / "tasks/old").symlink_to(outside)  # not in the index: what belongs to no task is removed, but not there
    learner.save(model)
    assert files_in(outside) == kept
    (tmp_path / "linked").symlink_to(model)  # the folder itself may be a link
    assert Learner.load(tmp_path / "linked").task_names == ("a", "b", "c")


def test_a_pipe_is_no_file(model: Path) -> None:
    (path,) = model.glob("shared-*")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StorageError, match="Expected a file at"):
        Learner.load(model)


def change(path: tuple[Any, ...], value: Any) -> Callable[[dict[str, Any]], None]:
    def changed(config: dict[str, Any]) -> None:
        part = config
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = value

    return changed


@pytest.mark.parametrize(
    "changed",
    [
        change(("net", "image_shape"), [1, 10**6, 10**6]),
        change(("net", "image_shape"), [10**15, 6, 6]),
        change(("net", "channels"), [10**15, 4]),
        change(("net", "hidden"), [10**15]),
        change(("net", "kernels"), [10**9, 2]),
        change(("net", "linear"), [10**15]),
        change(("tasks", 0, "name"), "../a"),
        change(("tasks", 0, "file"), "../../../etc/passwd"),
        change(("tasks", 0, "file"), "task-0000000000000000.json"),
        change(("tasks", 0, "configuration"), "T" * 10**6),
        change(("tasks", 1, "name"), "a"),
        change(("shared", "file"), "/etc/passwd"),
        change(("num_learned",), 1),
        change(("search", "name"), "os.system"),
        change(("sharing", "name"), "__import__"),
    ],
    ids=range(15),
)
def test_an_index_beyond_measure_is_refused(changed: Callable[[dict[str, Any]], None], model: Path) -> None:
    config = index_of(model)
    changed(config)
    (model / "config.json").write_text(sealed(config))
    with pytest.raises(StorageError):
        Learner.load(model)


def test_an_index_of_nested_lists_and_one_that_was_changed(model: Path) -> None:
    text = (model / "config.json").read_text()
    (model / "config.json").write_text("[" * 10**6)
    with pytest.raises(StorageError, match="damaged"):
        Learner.load(model)
    (model / "config.json").write_text(text.replace('"epochs": 1,', '"epochs": 7,'))
    with pytest.raises(StorageError, match=r"config\.json has changed since it was saved"):
        Learner.load(model)


def test_a_later_format_is_refused_by_name(model: Path) -> None:
    (model / "config.json").write_text(sealed(index_of(model) | {"format_version": 3}))
    for ask in (GrowingModel(model).show, lambda: GrowingModel(model).forget("a"), lambda: Learner.load(model)):
        with pytest.raises(
            StorageError, match=r"has format version 3; this lasem reads up to 2. Install a newer lasem"
        ):
            ask()


def test_a_network_that_fits_no_image_is_told(model: Path, tmp_path: Path) -> None:
    """Its weights are as they should be, but a pool is larger than any image."""
    from PIL import Image

    Image.new("L", (6, 6)).save(tmp_path / "image.png")
    config = index_of(model)
    config["net"]["strides"] = [1, 10**30]
    (model / "config.json").write_text(sealed(config))
    with pytest.raises(LasemError):
        list(GrowingModel(model).predict("a", [tmp_path / "image.png"]))
    with pytest.raises(LasemError):
        GrowingModel(model).export("a", "torch", tmp_path)


def test_only_plain_numbers_are_read(model: Path) -> None:
    """A pickle in the place of the weights is not even looked at."""
    import pickle

    class Evil:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(model / "evil"),))

    replace_weights(model, pickle.dumps(Evil()))
    with pytest.raises(StorageError):
        Learner.load(model)
    torch.save({"x": torch.zeros(1)}, model / "weights.pt")
    assert not (model / "evil").exists()
