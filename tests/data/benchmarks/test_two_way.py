"""CIFAR-10 and MNIST, which are cut in the same way."""

from pathlib import Path

import pytest
import torch

from lasem.data import Labelled, Part, TensorImages
from lasem.data.benchmarks import Cifar10Reader, MnistReader
from lasem.data.benchmarks.two_way import TwoWayReader
from lasem.errors import ConfigError, DataError

from .files import write_hub


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


def test_settings() -> None:
    with pytest.raises(ConfigError, match="num_tasks must be one of 5, 10; got '4'"):
        Cifar10Reader(num_tasks=4)
    with pytest.raises(ConfigError, match="num_train"):
        MnistReader(num_train=1)


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
