"""CIFAR-10 and MNIST, which are cut in the same way."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lasem.data import Labelled, TensorImages
from lasem.data.benchmarks import Cifar10Reader, MnistReader
from lasem.data.benchmarks.mnist import read_idx, write_idx
from lasem.data.benchmarks.two_way import cut_two_way
from lasem.data.cut import TEST, TRAIN
from lasem.errors import ConfigError, DataError

from ..fixture import all_pixels


def labelled(num_train: int = 60, num_test: int = 10) -> Labelled:
    labels = torch.arange(10).repeat(num_train + num_test)
    parts = torch.tensor([TRAIN] * 10 * num_train + [TEST] * 10 * num_test)
    images = torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8)
    return Labelled(labels, parts, [str(k) for k in range(10)], lambda at: TensorImages(images[at]))


@pytest.mark.parametrize("num_tasks", [5, 10])
def test_half_of_a_task_is_of_its_first_answer(num_tasks: int) -> None:
    data = labelled()
    settings = Cifar10Reader(num_tasks=num_tasks, num_train=40, num_valid=10, num_test=20)
    tasks = cut_two_way(settings, data, seed=0)
    assert len(tasks) == num_tasks
    training, validating = set(), set()
    for index, task in enumerate(tasks):
        first = index if num_tasks == 10 else 2 * index
        for positions, labels, count, part in zip(
            task.positions, task.labels, (40, 10, 20), (TRAIN, TRAIN, TEST), strict=True
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
    keep = (data.labels != 5) | (data.parts == TRAIN)
    keep[torch.nonzero((data.labels == 5) & (data.parts == TEST)).flatten()[:4]] = True
    fewer = Labelled(data.labels[keep], data.parts[keep], data.class_names, data.take)
    task = cut_two_way(Cifar10Reader(num_train=10, num_valid=4, num_test=14), fewer, seed=0)[2]
    assert task.labels[2].bincount().tolist() == [10, 4]
    task = cut_two_way(Cifar10Reader(num_train=10, num_valid=4, num_test=2000), fewer, seed=0)[2]
    assert task.labels[2].bincount().tolist() == [10, 4]  # all there are
    with pytest.raises(DataError, match=r"too few images: 100 .* 102"):
        cut_two_way(Cifar10Reader(num_train=102, num_valid=4), data, seed=0)


def test_settings() -> None:
    with pytest.raises(ConfigError, match=r"num_tasks must be 5 .* or 10"):
        Cifar10Reader(num_tasks=4)
    with pytest.raises(ConfigError, match="num_train"):
        MnistReader(num_train=1)


@pytest.mark.parametrize(
    ("reader", "shape", "sizes"),
    [
        (Cifar10Reader(stand_in=True), (3, 32, 32), [340, 60, 200]),
        (MnistReader(stand_in=True), (1, 28, 28), [300, 60, 200]),
    ],
    ids=["cifar10", "mnist"],
)
def test_stand_ins_go_through_the_files(reader: Any, shape: tuple[int, int, int], sizes: list[int]) -> None:
    tasks = list(reader.open(0))
    assert [task.name for task in tasks] == [f"{reader.name}-{index}" for index in range(5)]
    for task in tasks:
        assert task.image_shape == shape
        assert [len(split) for split in (task.train, task.valid, task.test)] == sizes
    assert tasks[0].classes in (("airplane", "automobile"), ("0", "1"))


def test_idx_files_are_read_as_they_are_defined(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    plain = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, *range(24)])
    write_idx(tmp_path / "a.gz", values)
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()) == plain
    (tmp_path / "b").write_bytes(plain)
    for name in ("a.gz", "b"):
        assert (read_idx(tmp_path / name, dimensions=3) == values).all()
    for damaged in (plain[:-1], b"", plain[:7], bytes([0, 0, 9, 3]) + plain[4:]):
        (tmp_path / "b").write_bytes(damaged)
        with pytest.raises(DataError, match="idx file"):
            read_idx(tmp_path / "b", dimensions=3)
    (tmp_path / "c.gz").write_bytes((tmp_path / "a.gz").read_bytes()[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path / "c.gz", dimensions=3)


def test_mnist_packed_or_not_gives_the_same(tmp_path: Path) -> None:
    labels = np.arange(10, dtype=np.uint8).repeat(40)
    pixels = np.random.default_rng(0).integers(0, 256, (400, 28, 28), dtype=np.uint8)
    for folder in ("packed", "plain"):
        (tmp_path / folder).mkdir()
    for kind in ("train", "t10k"):
        for name, values in ((f"{kind}-images-idx3-ubyte", pixels), (f"{kind}-labels-idx1-ubyte", labels)):
            packed = tmp_path / f"packed/{name}.gz"
            write_idx(packed, values)
            (tmp_path / "plain" / name).write_bytes(gzip.decompress(packed.read_bytes()))
    size = {"num_train": 20, "num_valid": 6, "num_test": 8}
    one, other = (MnistReader(path=str(tmp_path / name), **size).open(1)[3] for name in ("packed", "plain"))
    assert torch.equal(all_pixels(one.train), all_pixels(other.train))
    assert one.train.labels.tolist() == other.train.labels.tolist()
    write_idx(tmp_path / "packed/train-labels-idx1-ubyte.gz", labels[:-1])
    with pytest.raises(DataError, match="399 labels and 400 images"):
        MnistReader(path=str(tmp_path / "packed"), **size).open(1)
