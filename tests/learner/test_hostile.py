"""A model's folder from a stranger: nothing leads out of it, and nothing takes memory that is not there to take."""

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lasem import GrowingModel, Learner, TrainingConfig
from lasem.errors import LasemError, StorageError
from lasem.files import checksum
from lasem.methods import EWC, Penalty
from lasem.methods.transfer import Transfer

from .fixture import changed_index, files_in, memory_grows_by_less_than, tiny_net, tiny_task

QUICK = TrainingConfig(epochs=1, batch_size=5)
FILES = ["shared", "memory", "task", "config.json"]


@pytest.fixture(scope="module", params=[Transfer(protect=Penalty()), EWC()], ids=lambda method: method.name)
def good(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("good") / "model"
    learner = Learner(tiny_net(), request.param, training=QUICK)
    learner.learn(tiny_task("a"))
    learner.learn(tiny_task("b"))
    learner.save(place)
    return place


@pytest.fixture
def model(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "model"))


def entry_of(index: dict[str, Any], part: str) -> dict[str, Any]:
    """What an index says of a part."""
    if part == "shared":
        found = index.get("shared") or index["versions"]["0@0"]
    else:
        found = index["memory"] if part == "memory" else index["tasks"][0]["weights"]
    return found  # type: ignore[no-any-return]


def file_of(model: Path, part: str) -> Path:
    if part in ("config.json", "parts"):
        return model / part
    index = json.loads((model / "config.json").read_text())
    return model / "parts" / f"{entry_of(index, part)['checksum']}.safetensors"


def replace_part(model: Path, part: str, data: bytes) -> None:
    """Give a part other bytes, with every checksum right."""
    with changed_index(model) as index:
        entry_of(index, part).update(checksum=checksum(data), bytes=len(data))
    (model / "parts" / f"{checksum(data)}.safetensors").write_bytes(data)


def header(entry: Any) -> bytes:
    text = json.dumps(entry).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize("part", ["shared", "task"])
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
def test_a_header_that_claims_a_terabyte(data: bytes, part: str, model: Path) -> None:
    replace_part(model, part, data)
    with memory_grows_by_less_than(200), pytest.raises(StorageError):
        Learner.load(model)


def test_memory_that_was_taken_and_given_back_is_seen() -> None:
    torch.ones(24 << 20)  # 96 MiB: an earlier peak
    with memory_grows_by_less_than(32):
        torch.ones(2 << 20)
    with pytest.raises(AssertionError), memory_grows_by_less_than(32):
        torch.ones(16 << 20)


@pytest.mark.parametrize("name", FILES)
def test_a_file_larger_than_it_was_is_not_read(name: str, model: Path) -> None:
    """A terabyte that takes no place on the disk."""
    os.truncate(file_of(model, name), 10**12)
    with pytest.raises(StorageError, match="expected at most"):
        Learner.load(model)
    if name == "config.json":
        with pytest.raises(StorageError, match="expected at most"):
            Learner(tiny_net()).save(model)


@pytest.mark.parametrize("part", ["shared", "task"])
def test_a_part_larger_than_the_network_allows_is_not_read(part: str, model: Path) -> None:
    """Even if the index says that it is as large."""
    os.truncate(file_of(model, part), 10**12)
    with changed_index(model) as index:
        entry_of(index, part)["bytes"] = 10**12
    if "method" in index:
        pytest.skip("only the method knows how large its tensors are")
    with pytest.raises(StorageError, match="expected at most"):
        Learner.load(model)


@pytest.mark.parametrize("name", ["parts", *FILES])
def test_a_link_out_of_the_folder_is_not_followed(name: str, model: Path, tmp_path: Path) -> None:
    path, outside = file_of(model, name), tmp_path / "outside"
    path.rename(outside)
    path.symlink_to(outside)
    before = files_in(outside) if outside.is_dir() else outside.read_bytes()
    with pytest.raises(StorageError, match="a symbolic link leads out of it"):
        Learner.load(model)
    assert (files_in(outside) if outside.is_dir() else outside.read_bytes()) == before


def test_nothing_is_written_or_removed_through_a_link(model: Path, tmp_path: Path) -> None:
    learner = Learner.load(model)
    outside = Path(shutil.copytree(model / "parts", tmp_path / "outside"))
    kept = files_in(outside)
    learner.learn(tiny_task("c"))
    (model / "parts").rename(model / ".parts")
    (model / "parts").symlink_to(outside)
    with pytest.raises(StorageError, match="a symbolic link leads out of it"):
        learner.save(model)
    assert files_in(outside) == kept
    (model / "parts").unlink()
    (model / ".parts").rename(model / "parts")
    (tmp_path / "linked").symlink_to(model)  # the folder itself may be a link
    learner.save(tmp_path / "linked")
    assert Learner.load(tmp_path / "linked").task_names == ("a", "b", "c")
    assert files_in(outside) == kept


@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "pipe", "folder"])
def test_a_lock_is_a_file_of_its_own(kind: str, model: Path, tmp_path: Path) -> None:
    """Locking would empty what a planted link leads to."""
    lock, mine = model / ".lock", tmp_path / "mine"
    lock.unlink(missing_ok=True)
    mine.write_text("years of work")
    {
        "link": lambda: lock.symlink_to(mine),
        "dangling link": lambda: lock.symlink_to(tmp_path / "new"),
        "hard link": lambda: lock.hardlink_to(mine),
        "pipe": lambda: os.mkfifo(lock),
        "folder": lock.mkdir,
    }[kind]()
    for change in (lambda: GrowingModel(model).forget("a"), lambda: GrowingModel(model).learn("c", tiny_task("c"))):
        with pytest.raises(StorageError, match=r"Expected a lock at .*\.lock, a file of its own"):
            change()
    assert mine.read_text() == "years of work"
    assert not (tmp_path / "new").exists()
    assert Learner.load(model).task_names == ("a", "b")


def test_leftovers_are_removed_from_the_folder_itself_only(model: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for place in (outside, model):
        (place / ".left.1.tmp").write_text("half")
    (model / ".learning").symlink_to(outside)
    (model / ".mine").symlink_to(outside)
    GrowingModel(model).forget("b")
    assert (outside / ".left.1.tmp").exists()
    assert not (model / ".left.1.tmp").exists()


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_is_no_file_nor_is_nothing(name: str, model: Path) -> None:
    path = file_of(model, name)
    path.unlink()
    for place, missing in ((model, path.name), (model / "nowhere", "config.json")):
        with pytest.raises(StorageError, match=f"Expected a saved model with .*{missing}"):
            Learner.load(place)
    os.mkfifo(path)
    with pytest.raises(StorageError, match="it is no file"):
        Learner.load(model)


NO_PART = {"checksum": "0" * 64, "bytes": 1, "numbers": 1}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *((("format_version",), value) for value in (10**6, "1", None)),
        *((("seed",), value) for value in (-1, float("inf"), "x")),
        (("net",), []),
        (("net", "image_shape"), [1, 6, 8]),
        (("net", "image_shape"), [1, 10**6, 10**6]),
        (("net", "image_shape"), [10**15, 6, 6]),
        (("net", "channels"), [3]),
        (("net", "channels"), [10**15, 4]),
        (("net", "hidden"), [10**15]),
        (("net", "kernels"), [10**9, 2]),
        (("net", "linear"), [10**15]),
        (("net", "dropout"), 3),
        (("net", "colour"), 3),
        *((("method or sharing", "name"), value) for value in ("os.system", None, ["hps"])),
        (("method or sharing",), None),
        (("training",), None),
        *((("training", "epochs"), value) for value in (0, None)),
        (("num_learned",), 1),
        *((("tasks",), value) for value in (None, [{"name": "../../etc", "checksum": "0"}], ["t0"], [3])),
        (("tasks", 0), {"name": "a"}),
        (("tasks", 0, "name"), 3),
        (("tasks", 1, "name"), "a"),
        (("tasks", 0, "configuration"), "T" * 10**6),
        *((("tasks", 0, "weights", "checksum"), value) for value in ("../../../../../etc/passwd", "0" * 64)),
        (("tasks", 0, "weights", "bytes"), 10),
        (("tasks", 0, "weights", "numbers"), "x"),
        (("versions", "0@0"), None),
        *((("versions", key), NO_PART) for key in ("../0@0", "0@-1")),
        (("memory", "checksum"), "0" * 64),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_index_beyond_measure_is_refused(path: tuple[Any, ...], value: Any, model: Path) -> None:
    with changed_index(model) as index:
        part: Any = index
        keys = [("method" if "method" in index else "sharing") if key == "method or sharing" else key for key in path]
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value
    with pytest.raises(StorageError):
        Learner.load(model)


def test_an_index_of_nested_lists_and_one_that_was_changed(model: Path) -> None:
    text = (model / "config.json").read_text()
    (model / "config.json").write_text(text.replace('"epochs": 1,', '"epochs": 7,'))
    for ask in (lambda: Learner.load(model), lambda: Learner(tiny_net(), EWC()).save(model)):
        with pytest.raises(StorageError, match=r"config\.json has changed since it was saved"):
            ask()
    (model / "config.json").write_text("[" * 10**6)
    with pytest.raises(StorageError, match="damaged"):
        Learner.load(model)


@pytest.mark.parametrize(("version", "advice"), [(4, "Install a newer lasem"), (2, "Learn its tasks again")])
def test_another_format_is_refused_by_name(version: int, advice: str, model: Path) -> None:
    with changed_index(model) as index:
        index["format_version"] = version
    for ask in (GrowingModel(model).show, lambda: GrowingModel(model).forget("a"), lambda: Learner.load(model)):
        with pytest.raises(StorageError, match=f"has format version {version}; this lasem reads version 3. {advice}"):
            ask()


def test_a_network_that_fits_no_image_is_an_error_of_lasem(model: Path, tmp_path: Path) -> None:
    """Its weights are as they should be, but a pool is larger than any image."""
    Image.new("L", (6, 6)).save(tmp_path / "image.png")
    with changed_index(model) as index:
        index["net"]["strides"] = [1, 10**30]
    with pytest.raises(LasemError):
        list(GrowingModel(model).predict("a", [tmp_path / "image.png"]))
    with pytest.raises(LasemError):
        GrowingModel(model).export("a", "torch", tmp_path)


def test_only_plain_numbers_are_read(model: Path) -> None:
    """A pickle in the place of the weights is not even looked at."""

    class Evil:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(model / "evil"),))

    replace_part(model, "task", pickle.dumps(Evil()))
    with pytest.raises(StorageError):
        Learner.load(model)
    assert not (model / "evil").exists()
