from pathlib import Path

import pytest
import torch

from lasem.data.benchmarks import Cifar100Reader
from lasem.data.benchmarks.cifar100 import paper_classes
from lasem.errors import ConfigError

from ..fixture import all_pixels, named_pixels, random_images, write_parquet

SMALL = {"train_per_class": 4, "valid_per_class": 2}
TRAIN, TEST = random_images(600, (3, 32, 32)), random_images(100, (3, 32, 32), seed=1)
REAL = Path(__file__).parents[4] / "shared/data/cifar100"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("cifar")
    names = [f"class {number:02d}" for number in range(100)]
    for part, images in (("train", TRAIN), ("test", TEST)):
        file = place / f"cifar100/{part}-00000-of-00001.parquet"
        labels = [number % 100 for number in range(len(images))]
        write_parquet(file, images, labels, names, rows_in_group=200, image="img", label="fine_label")
    return place


def test_images_and_labels_are_those_of_the_files(folder: Path) -> None:
    task = Cifar100Reader(path=str(folder), **SMALL).open(3)[4]
    wanted = sorted(paper_classes(10)[4])
    assert task.classes == tuple(f"class {number:02d}" for number in wanted)
    assert task.image_shape == (3, 32, 32)
    assert [len(split) for split in (task.train, task.valid, task.test)] == [40, 20, 10]
    known = {image.numpy().tobytes(): f"class {number % 100:02d}" for number, image in enumerate((*TRAIN, *TEST))}
    assert named_pixels([task]).items() < known.items()


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
    one, other = (Cifar100Reader(path=str(folder), **SMALL).open(seed)[0] for seed in (0, 1))
    assert one.classes == other.classes
    assert not torch.equal(all_pixels(one.train), all_pixels(other.train))
    drawn = Cifar100Reader(path=str(folder), classes="drawn", num_tasks=5, classes_per_task=20, **SMALL).open(0)
    assert drawn.num_tasks == 5
    assert len({name for task in drawn for name in task.classes}) == 100


def test_settings_that_the_paper_does_not_have() -> None:
    for settings in ({"num_tasks": 11}, {"classes_per_task": 5}, {"num_tasks": None}):
        with pytest.raises(ConfigError, match="10, 20 or 40 tasks of 10 classes"):
            Cifar100Reader(**settings)  # type: ignore[arg-type]


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared data are not here")
def test_real_images() -> None:
    stream = Cifar100Reader(path=str(REAL)).open(0)
    assert stream.num_tasks == 10
    task = stream[9]
    assert [len(split) for split in (task.train, task.valid, task.test)] == [170, 30, 1000]
    assert {"squirrel", "woman"} < set(task.classes)
