"""CIFAR-100; and CIFAR-10 and MNIST, which are cut in the same way."""

from pathlib import Path

import pytest
import torch

from lasem.data import Labelled, Part, TensorImages
from lasem.data.benchmarks import Cifar10Reader, Cifar100Reader, MnistReader
from lasem.data.benchmarks.hub import TwoWayReader, paper_classes
from lasem.errors import ConfigError, DataError

from ..fixture import all_pixels, named_pixels, random_images, write_parquet
from .files import write_hub

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
    assert (task.classes, task.image_shape) == (tuple(f"class {number:02d}" for number in wanted), (3, 32, 32))
    assert [len(split) for split in (task.train, task.valid, task.test)] == [40, 20, 10]
    known = {image.numpy().tobytes(): f"class {number % 100:02d}" for number, image in enumerate((*TRAIN, *TEST))}
    assert named_pixels([task]).items() < known.items()


def test_ten_tasks_are_disjoint_and_use_every_class() -> None:
    tasks = paper_classes(10)
    assert sorted(number for task in tasks for number in task) == list(range(100))
    assert (tasks[0], tasks[9]) == ([4, 1, 54, 9, 0, 5, 6, 3, 12, 8], [87, 71, 38, 75, 99, 98, 93, 80, 96, 89])


def test_twenty_and_forty_tasks_are_the_authors() -> None:
    twenty, forty = paper_classes(20), paper_classes(40)
    assert (forty[:20], len(forty)) == (twenty, 40)
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


def labelled(num_train: int = 60, num_test: int = 10) -> Labelled:
    labels = torch.arange(10).repeat(num_train + num_test)
    parts = torch.tensor([Part.TRAIN] * 10 * num_train + [Part.TEST] * 10 * num_test)
    images = torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8)
    return Labelled(labels, parts, [str(k) for k in range(10)], lambda at: TensorImages(images[at]))


@pytest.mark.parametrize("num_tasks", [5, 10])
def test_half_of_a_task_is_of_its_first_answer(num_tasks: int) -> None:
    data = labelled()
    settings = Cifar10Reader(num_tasks=num_tasks, num_train=40, num_valid=10, num_test=20)
    tasks = settings.cut(data, seed=0)
    assert len(tasks) == num_tasks
    training, validating = set(), set()
    for index, task in enumerate(tasks):
        first = index if num_tasks == 10 else 2 * index
        for positions, labels, count, part in zip(
            task.positions, task.labels, (40, 10, 20), (Part.TRAIN, Part.TRAIN, Part.TEST), strict=True
        ):
            assert len(positions) == len(set(positions.tolist())) == count
            assert (data.parts[positions] == part).all()
            assert ((data.labels[positions] == first) == (labels == 0)).all()
            assert (labels == 0).sum() == count // 2
            if num_tasks == 5:
                assert set(data.labels[positions].tolist()) == {first, first + 1}
        training |= set(task.positions[0].tolist())
        validating |= set(task.positions[1].tolist())
    assert not training & validating  # in no task, not even in different ones


def test_where_one_answer_has_too_few_images_the_other_gives_more() -> None:
    data = labelled(num_test=10)
    keep = (data.labels != 5) | (data.parts == Part.TRAIN)
    keep[torch.nonzero((data.labels == 5) & (data.parts == Part.TEST)).flatten()[:4]] = True
    fewer = Labelled(data.labels[keep], data.parts[keep], data.class_names, data.take)
    task = Cifar10Reader(num_train=10, num_valid=4, num_test=14).cut(fewer, seed=0)[2]
    assert task.labels[2].bincount().tolist() == [10, 4]
    task = Cifar10Reader(num_train=10, num_valid=4, num_test=2000).cut(fewer, seed=0)[2]
    assert task.labels[2].bincount().tolist() == [10, 4]  # all there are
    with pytest.raises(DataError, match=r"too few images: 100 .* 102"):
        Cifar10Reader(num_train=102, num_valid=4).cut(data, seed=0)


@pytest.mark.parametrize(("kind", "image"), [(Cifar10Reader, "img"), (MnistReader, "image")])
def test_files_of_the_hub(kind: type[TwoWayReader], image: str, tmp_path: Path) -> None:
    shape = (3, 32, 32) if image == "img" else (1, 28, 28)
    names = [f"kind {number}" for number in range(10)]
    write_hub(tmp_path / kind.layout.folders[0], shape, names, (40, 10), image=image)
    tasks = list(kind(path=str(tmp_path), num_train=20, num_valid=6, num_test=16).open(0))
    assert [task.name for task in tasks] == [f"{kind.name}-{index}" for index in range(5)]
    assert tasks[4].classes == ("kind 8", "kind 9")
    for task in tasks:
        assert task.image_shape == shape
        assert [len(split) for split in (task.train, task.valid, task.test)] == [20, 6, 16]
