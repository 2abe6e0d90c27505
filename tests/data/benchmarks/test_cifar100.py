from pathlib import Path

import numpy as np
import pytest
import torch

from lasem.data import TaskStream
from lasem.data.benchmarks import Cifar100Reader
from lasem.data.benchmarks.cifar100 import paper_classes
from lasem.errors import ConfigError, DataError

from ..fixture import all_pixels, assert_same_task, write_parquet

NUM_TRAIN, NUM_TEST = 6, 1
SMALL = {"train_per_class": 4, "valid_per_class": 2}


def write_binary(folder: Path, name: str, num: int, seed: int) -> tuple[np.ndarray, list[int]]:
    """Byte by byte, as the data set's page describes it: coarse label, fine label, 1024 red, green, blue values."""
    pixels = np.random.default_rng(seed).integers(0, 256, (100 * num, 3, 32, 32), dtype=np.uint8)
    labels = [number % 100 for number in range(100 * num)]
    with (folder / f"{name}.bin").open("wb") as file:
        for image, label in zip(pixels, labels, strict=True):
            file.write(bytes([label // 5, label]))
            for channel in image:
                file.write(channel.tobytes())
    return pixels, labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("cifar")
    inner = place / "cifar-100-binary"
    inner.mkdir()
    names = [f"class {number:02d}" for number in range(100)]
    for name, num, seed in (("train", NUM_TRAIN, 0), ("test", NUM_TEST, 1)):
        pixels, labels = write_binary(inner, name, num, seed)
        (place / "parquet/cifar100").mkdir(parents=True, exist_ok=True)
        file = place / f"parquet/cifar100/{name}-00000-of-00001.parquet"
        write_parquet(file, torch.from_numpy(pixels), labels, names, image="img", label="fine_label")
    (inner / "fine_label_names.txt").write_text("\n".join(names) + "\n")
    return place


def test_images_and_labels_are_those_of_the_files(folder: Path) -> None:
    task = Cifar100Reader(path=str(folder), **SMALL).open(3)[4]
    raw = (folder / "cifar-100-binary/train.bin").read_bytes()
    wanted = sorted(paper_classes(10)[4])
    assert task.classes == tuple(f"class {number:02d}" for number in wanted)
    assert task.image_shape == (3, 32, 32)
    assert [len(split) for split in (task.train, task.valid, task.test)] == [40, 20, 10]
    by_pixels = {raw[at + 2 : at + 3074]: raw[at + 1] for at in range(0, len(raw), 3074)}
    seen = set()
    for split in (task.train, task.valid):
        for image, label in zip(all_pixels(split), split.labels.tolist(), strict=True):
            key = image.numpy().tobytes()
            assert wanted[label] == by_pixels[key]
            seen.add(key)
    assert len(seen) == 60  # no image trains and validates


def test_parquet_and_binary_give_the_same_tasks(folder: Path) -> None:
    streams = [Cifar100Reader(path=str(place), **SMALL).open(0) for place in (folder, folder / "parquet")]
    assert [stream.num_tasks for stream in streams] == [10, 10]
    for index in (0, 9):
        assert_same_task(streams[0][index], streams[1][index])


def test_ten_tasks_are_disjoint_and_use_every_class() -> None:
    tasks = paper_classes(10)
    assert sorted(number for task in tasks for number in task) == list(range(100))
    assert tasks[0] == [4, 1, 54, 9, 0, 5, 6, 3, 12, 8]
    assert tasks[9] == [87, 71, 38, 75, 99, 98, 93, 80, 96, 89]


def test_twenty_and_forty_tasks_are_the_authors() -> None:
    twenty, forty = paper_classes(20), paper_classes(40)
    assert forty[:20] == twenty
    assert len(forty) == 40
    for number, classes in {
        1: [4, 23, 54, 34, 0, 2, 6, 36, 12, 41],
        3: [22, 32, 15, 10, 26, 20, 27, 42, 47, 13],
        16: [87, 71, 38, 75, 99, 98, 93, 80, 96, 89],
        17: [87, 91, 38, 61, 99, 94, 93, 97, 96, 90],
        19: [95, 1, 92, 9, 83, 5, 24, 3, 76, 8],
        20: [4, 22, 54, 15, 0, 26, 6, 27, 12, 47],
        21: [1, 23, 9, 34, 5, 26, 6, 27, 12, 47],
        24: [30, 39, 62, 19, 51, 45, 7, 29, 17, 52],
        38: [91, 71, 61, 75, 94, 98, 97, 80, 90, 89],
        39: [4, 22, 54, 15, 0, 98, 97, 80, 90, 89],
    }.items():
        assert forty[number] == classes
    for task in forty:
        assert len(set(task)) == 10


def test_a_class_has_the_same_images_in_every_task(folder: Path) -> None:
    stream = Cifar100Reader(path=str(folder), num_tasks=20, **SMALL).open(0)
    first, second = stream[0], stream[1]  # share every second class
    name = "class 04"
    pixels = [all_pixels(task.train)[task.train.labels == task.label_of(name)] for task in (first, second)]
    assert torch.equal(pixels[0], pixels[1])


def test_the_seed_draws_images_and_drawn_classes(folder: Path) -> None:
    def opened(**settings: object) -> TaskStream:
        return Cifar100Reader(path=str(folder), **SMALL, **settings).open(settings.get("seed", 0))  # type: ignore

    one, other = (Cifar100Reader(path=str(folder), **SMALL).open(seed)[0] for seed in (0, 1))
    assert one.classes == other.classes
    assert not torch.equal(all_pixels(one.train), all_pixels(other.train))
    drawn = opened(classes="drawn", num_tasks=5, classes_per_task=20)
    assert drawn.num_tasks == 5
    assert len({name for task in drawn for name in task.classes}) == 100


def test_settings_that_the_paper_does_not_have() -> None:
    for settings in ({"num_tasks": 11}, {"classes_per_task": 5}, {"num_tasks": None}):
        with pytest.raises(ConfigError, match="10, 20 or 40 tasks of 10 classes"):
            Cifar100Reader(**settings)  # type: ignore[arg-type]


def test_damaged_files_are_told(folder: Path, tmp_path: Path) -> None:
    for name in ("train.bin", "test.bin", "fine_label_names.txt"):
        (tmp_path / name).write_bytes((folder / "cifar-100-binary" / name).read_bytes())
    reader = Cifar100Reader(path=str(tmp_path), **SMALL)
    reader.open(0)
    (tmp_path / "train.bin").write_bytes((tmp_path / "train.bin").read_bytes()[:-1])
    with pytest.raises(DataError, match=r"records of 3074 bytes in .*train\.bin"):
        reader.open(0)
    (tmp_path / "train.bin").write_bytes(bytes([19, 100]) + bytes(3072))
    with pytest.raises(DataError, match="labels from 0 to 99"):
        reader.open(0)
    (tmp_path / "fine_label_names.txt").write_text("apple\n")
    with pytest.raises(DataError, match="names of 100 classes"):
        reader.open(0)


def test_the_stand_in_is_the_same_every_time_and_can_be_learned() -> None:
    one, two = (Cifar100Reader(stand_in=True).open(0)[0] for _ in range(2))
    assert_same_task(one, two)
    assert [len(split) for split in (one.train, one.valid, one.test)] == [170, 30, 200]
    centres = torch.stack([all_pixels(one.train)[one.train.labels == k].float().mean(0) for k in range(10)])
    distances = torch.cdist(all_pixels(one.test).float().flatten(1), centres.flatten(1))
    assert (distances.argmin(1) == one.test.labels).float().mean() > 0.9
