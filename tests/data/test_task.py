import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lasem.data import (
    AbstractImages,
    FileImages,
    SelectedImages,
    Split,
    Task,
    TaskStream,
    TensorImages,
    TensorReader,
    child_generator,
    task_on,
)
from lasem.data import split as split_module
from lasem.data import task as task_module
from lasem.data.task import free_bytes
from lasem.errors import ConfigError, DataError

from .fixture import all_pixels, assert_same_task, random_images, random_split, random_task, write_class_folders

CPU = torch.device("cpu")


def test_labels_go_to_names_and_back() -> None:
    task = random_task(num_classes=3)
    assert task.names_of(torch.tensor([2, 0])) == ["class2", "class0"]
    assert [task.label_of(name) for name in task.classes] == [0, 1, 2]
    assert (task.num_classes, task.image_shape) == (3, (3, 4, 5))
    with pytest.raises(DataError, match=r"no class 'clas2'.*Did you mean 'class2'"):
        task.label_of("clas2")
    with pytest.raises(DataError, match=r"labels from 0 to 2.*got 3"):
        task.names_of(torch.tensor([3]))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a ", "a\tb", "ü", "a\n", "x" * 101])
def test_a_name_that_names_no_folder_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="Expected a task name"):
        random_task(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("one",)}, "at least 2 classes; got 1"),
        ({"classes": ("one", "one")}, "come more than once: one"),
        ({"valid": random_split(0)}, "'valid' is empty"),
        ({"test": random_split(3, shape=(1, 4, 5))}, r"'train' are \(3, 4, 5\).*'test' \(1, 4, 5\)"),
        ({"test": random_split(3, num_classes=3)}, "labels from 0 to 1.*split 'test'.*got 2"),
    ],
)
def test_a_task_that_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        replace(random_task(), **change)


def test_any_integers_become_labels_from_zero() -> None:
    part = (random_images(3).numpy(), np.array([-5, 40, 7]))
    task = Task.from_tensors("mine", train=part, valid=part, test=(part[0][:1], [40]))
    assert (task.classes, task.train.labels.tolist()) == (("-5", "7", "40"), [0, 2, 1])
    assert task.test.labels.tolist() == [2]


def test_named_labels_are_positions() -> None:
    part = (torch.rand(3, 8, 8), torch.tensor([2, 0, 2]))
    task = Task.from_tensors("mine", train=part, valid=part, test=part, classes=["a", "b", "c"])
    assert (task.names_of(task.train.labels), task.image_shape) == (["c", "a", "c"], (1, 8, 8))


@pytest.mark.parametrize(
    ("test", "classes", "message"),
    [
        ((random_images(2), [0, 1, 1]), None, "split 'test'.*got 2 images and 3 labels"),
        ((random_images(2), [0, 5]), None, r"that the training images have, \[0, 1\].*split 'test'.*got 5"),
        ((random_images(2), [0, -1]), ["a", "b"], "labels from 0 to 1.*split 'test'.*got -1"),
        ((random_images(0), []), None, "labels"),
        ((random_images(0), torch.zeros(0, dtype=torch.int64)), None, "there are none.*split 'test'"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(test: Any, classes: list[str] | None, message: str) -> None:
    part = (random_images(2), [0, 1])
    with pytest.raises(DataError, match=message):
        Task.from_tensors("mine", train=part, valid=part, test=test, classes=classes)


def named(test_labels: list[str], classes: list[str] | None = None) -> Task:
    images = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    split = (images, ["dog", "cat", "dog"])
    return Task.from_tensors("pets", train=split, valid=split, test=(images, test_labels), classes=classes)


def test_names_become_positions_in_alphabetical_or_given_order() -> None:
    assert named(["cat", "cat", "dog"]).test.labels.tolist() == [0, 0, 1]
    task = named(["cat", "cat", "dog"], classes=["dog", "cat"])
    assert (task.classes, task.train.labels.tolist()) == (("dog", "cat"), [0, 1, 0])
    with pytest.raises(DataError, match=r"Expected only the classes cat, dog .*split 'test'.*got 'dgo'.*'dog'"):
        named(["cat", "cat", "dgo"])


def test_a_stream_of_tasks_gives_them_each_time() -> None:
    tasks = [random_task(f"t{index}") for index in range(3)]
    stream = TaskStream.of(tasks, name="mine")
    assert (stream.name, stream.num_tasks, len(stream)) == ("mine", 3, 3)
    assert list(stream) == tasks == list(stream)
    assert stream[1] is tasks[1]
    assert stream[-1] is tasks[2]
    for index in (3, -4):
        with pytest.raises(DataError, match=f"of 3 tasks, counted from 0; got {index}"):
            stream[index]


def test_tasks_are_made_when_they_are_reached() -> None:
    made = []

    def task_at(index: int) -> Task:
        made.append(index)
        return random_task(f"t{index}")

    stream = TaskStream.made_by(task_at, name="lazy", num_tasks=5)
    next(iter(stream))
    assert stream[3].name == "t3"
    assert made == [0, 3]


def test_how_many_tasks_there_are_need_not_be_known() -> None:
    def endless() -> Iterator[Task]:
        index = 0
        while True:
            yield random_task(f"t{index}")
            index += 1

    stream = TaskStream("endless", endless)
    assert stream.num_tasks is None
    assert [task.name for task, _ in zip(stream, range(3), strict=False)] == ["t0", "t1", "t2"]
    assert stream[2].name == "t2"
    with pytest.raises(DataError, match="not known"):
        len(stream)
    with pytest.raises(DataError, match="not known"):
        stream[-1]
    short = TaskStream("short", lambda: [random_task()])
    assert len(list(short)) == 1
    with pytest.raises(DataError, match="index of a task in stream 'short'"):
        short[1]


def test_two_tasks_of_one_name_are_refused() -> None:
    with pytest.raises(DataError, match="more than once: task"):
        TaskStream.of([random_task(), random_task()])
    with pytest.raises(DataError, match="'task' twice"):
        list(TaskStream("twice", lambda: [random_task(), random_task()]))


def test_a_path_gives_the_same_numbers_again_and_another_path_others() -> None:
    draws = [
        torch.rand(3, generator=child_generator(*path)).tolist() for path in [(0, 1), (0, 1), (0, 2), (1, 1), (0,)]
    ]
    assert draws[0] == draws[1]
    assert len({tuple(draw) for draw in draws}) == 4


@pytest.mark.parametrize("seed", [-1, 1.5, True, "0"])
def test_a_seed_is_a_natural_number(seed: int) -> None:
    with pytest.raises(ConfigError, match="seed must be an integer of at least 0; got"):
        child_generator(seed)


def image_files(place: Path) -> FileImages:
    write_class_folders(place, ["a"], 9, size=4)
    return FileImages(sorted((place / "a").glob("*.png")))


def images_of(kind: str, place: Path) -> AbstractImages:
    if kind == "files":
        return image_files(place)
    pixels = random_images(9, (3, 4, 4))
    if kind == "floats":
        return TensorImages(pixels / 255)
    return TensorImages(pixels) if kind == "bytes" else SelectedImages(TensorImages(pixels), torch.arange(8, -1, -1))


def task_of(split: Split, valid: Split | None = None, test: Split | None = None) -> Task:
    return Task("task", ("a", "b"), split, valid or random_split(4), test or random_split(5))


def pretend(patch: pytest.MonkeyPatch, free: int) -> None:
    """Let the CPU be a device with memory of its own, of which so many bytes are free."""
    patch.setattr(task_module, "free_bytes", lambda device: free)


@pytest.mark.parametrize("chunk", [100, 4 * 48 * 4])  # two images, four
@pytest.mark.parametrize("kind", ["bytes", "floats", "selected", "files"])
def test_batches_of_placed_images_are_the_same(kind: str, chunk: int, tmp_path: Path, monkeypatch: Any) -> None:
    images = images_of(kind, tmp_path)
    split = Split(images, torch.arange(9) % 2, torch.tensor([0.1, 0.2, 0.3]), torch.tensor([1.0, 0.7, 3.0]))
    monkeypatch.setattr(split_module, "_CHUNK_BYTES", chunk)
    pretend(monkeypatch, 10**6)
    task = task_of(split, split, split)
    placed = task_on(task, CPU, 1.0)
    assert isinstance(placed.train.images, TensorImages)
    assert placed.train.images is not images
    assert placed.train.images.tensor.dtype == images.take(torch.arange(1)).dtype  # bytes stay bytes
    assert placed.train is placed.valid is placed.test  # one copy of one split
    assert_same_task(task, placed)
    assert split.num_bytes == placed.train.num_bytes == placed.train.images.tensor.nbytes + 9 * 8
    for drop_last in (False, True):
        ways = [
            list(s.batches(2, generator=torch.Generator().manual_seed(7), drop_last=drop_last))
            for s in (split, placed.train)
        ]
        assert len(ways[0]) == len(ways[1]) == (4 if drop_last else 5)
        for (x, labels), (placed_x, placed_labels) in zip(*ways, strict=True):
            assert torch.equal(x, placed_x)
            assert torch.equal(labels, placed_labels)


def test_on_a_cpu_nothing_is_copied() -> None:
    task = task_of(random_split(6))
    assert free_bytes(CPU) is None
    assert free_bytes(torch.device("meta")) is None  # and what nobody knows is not used
    assert task_on(task, CPU, 1.0) is task


def test_what_does_not_fit_waits_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(random_split(6))
    train, valid = task.train.num_bytes, task.valid.num_bytes
    assert (train, valid) == (6 * (60 + 8), 4 * (60 + 8))

    def placed(free: int, share: float) -> tuple[bool, bool, bool]:
        pretend(monkeypatch, free)
        there = task_on(task, CPU, share)
        return there.train is not task.train, there.valid is not task.valid, there.test is not task.test

    assert placed(train + valid, 1.0) == (True, True, False)
    assert placed(2 * (train + valid), 0.5) == (True, True, False)
    assert placed(train + valid - 1, 1.0) == (True, False, False)
    assert placed(train - 1, 1.0) == (False, True, False)  # the smaller one alone
    assert placed(valid - 1, 1.0) == placed(10**9, 0.0) == (False, False, False)


def test_the_memory_is_the_placed_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(random_split(6))
    pretend(monkeypatch, 10**9)
    placed = task_on(task, CPU, 1.0)
    assert isinstance(placed.train.images, TensorImages)
    tensor = weakref.ref(placed.train.images.tensor)
    before = all_pixels(task.train)
    placed.train.images.tensor.zero_()  # a copy: nobody else sees it
    assert torch.equal(before, all_pixels(task.train))
    del placed
    gc.collect()
    assert tensor() is None


def test_placed_images_cross_to_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a device that has no data, but knows what is on it: an epoch moves the order of the images, and no image."""
    crossings: list[tuple[int, ...]] = []

    def counted(tensor: Tensor, device: torch.device | str) -> Tensor:
        if tensor.device != torch.device(device):
            crossings.append(tuple(tensor.shape))
        return tensor.to(device)

    monkeypatch.setattr(split_module, "moved", counted)
    monkeypatch.setattr(split_module, "_CHUNK_BYTES", 4 * 60 * 4)
    split = random_split(9)
    epochs = [list(split.batches(2, device="meta"))]
    # mean and deviation, then images and labels of four, four and one
    assert crossings == [(3,), (3,), (4, 3, 4, 5), (4,), (4, 3, 4, 5), (4,), (1, 3, 4, 5), (1,)]
    crossings.clear()
    object.__setattr__(
        split, "images", TensorImages.placed(torch.empty(9, 3, 4, 5, dtype=torch.uint8, device="meta"), 1.0)
    )
    for name in ("labels", "mean", "std"):
        object.__setattr__(split, name, getattr(split, name).to("meta"))
    epochs.append(list(split.batches(2, device="meta", generator=torch.Generator())))
    assert crossings == [(9,)]
    for epoch in epochs:
        assert [len(x) for x, _ in epoch] == [2, 2, 2, 2, 1]
        assert {t.device.type for batch in epoch for t in batch} == {"meta"}


GREYS = torch.arange(0, 17).repeat(4, 1)[:, None, :, None].repeat(1, 1, 1, 2)  # 4 images of all levels from 0 to 16
FLOATS, BYTES = GREYS.float(), GREYS.to(torch.uint8)


def scaled(train: Any, test: Any, **more: Any) -> Task:
    labels = [0, 1, 0, 1]
    return Task.from_tensors("t", train=(train, labels), valid=(train, labels), test=(test, labels), **more)


@pytest.mark.parametrize(
    ("images", "scale", "expected"),
    [
        (FLOATS / 16, "auto", 1.0),
        (FLOATS / 20, "auto", 1.0),
        (FLOATS, "auto", 16.0),
        (FLOATS / 16 * 255, "auto", 255.0),
        (FLOATS / 16 * 200, "auto", 255.0),
        (FLOATS / 16 * 4095, "auto", 4095.0),
        (FLOATS / 16 * 41, "auto", None),  # of what?
        (FLOATS - 8, "auto", None),  # standardised
        (FLOATS, "none", None),
        (FLOATS / 2, 16, 16.0),
        (BYTES, 16, 16.0),
        (BYTES, "auto", 16.0),
        (BYTES * 2, "auto", 1.0),
        (BYTES, 255, 1.0),
        ((GREYS > 8).to(torch.uint8), "auto", 1.0),
        (FLOATS[:, :, -1:], "auto", None),  # a signal
    ],
)
def test_the_scale_is_said_or_found_in_the_training_images(images: Tensor, scale: Any, expected: float | None) -> None:
    task = scaled(images, images, scale=scale)
    assert task.scale == task.test.images.scale == expected
    white = images.max() / (expected or images.max())  # in the unit of the scale, whatever the type
    white = white / 255 if task.train.images.take(torch.tensor([0])).dtype == torch.uint8 else white
    (values, _) = next(replace(task.train, mean=torch.zeros(1), std=torch.ones(1)).batches(4))
    torch.testing.assert_close(values.max() / (expected or images.max()), white)


@pytest.mark.parametrize(
    ("train", "test", "scale", "message"),
    [
        (BYTES * 15, FLOATS * 15, "auto", r"uint8 from 0 to 240 .*'train'.*float32 from 0 to 240 .*'test'.*scale=255"),
        (BYTES * 15, FLOATS / 16, "auto", r"uint8 from 0 to 240 .*float32 from 0 to 1 .*'test'"),
        (BYTES * 15, BYTES, "auto", "uint8 from 0 to 240 .*uint8 from 0 to 16 .*'test'"),
        (FLOATS, FLOATS / 16, "auto", "from 0 to 16 .*from 0 to 1 .*'test'"),
        (FLOATS / 16, FLOATS, "auto", "from 0 to 1 .*from 0 to 16 .*'test'"),
        (FLOATS / 8 - 1, FLOATS / 8, "auto", "from -1 to 1 .*from 0 to 2 .*'test'"),
        ((GREYS > 8).to(torch.uint8), BYTES * 15, "auto", "uint8 from 0 to 1 .*from 0 to 240"),
        (FLOATS, FLOATS * 15, 16, r"Expected images from 0 to 16, as scale says; got float32 from 0 to 240 .*'test'"),
        (FLOATS, FLOATS - 8, 16, "from -8 to 8"),
        (FLOATS * 31 / 16, FLOATS * 15, "auto", "from 0 to 31 .*from 0 to 240 .*'test'"),
        (FLOATS * 15, FLOATS * 31 / 16, "auto", "from 0 to 240 .*from 0 to 31 .*'test'"),
        (FLOATS / 16, FLOATS / 2, "auto", "from 0 to 1 .*from 0 to 8 .*'test'"),
        (FLOATS / 16 * 4095, FLOATS / 16 * 16383, "auto", "from 0 to 4095 .*from 0 to 16383 .*'test'"),
    ],
)  # fmt: skip
def test_splits_on_different_scales_are_refused(train: Tensor, test: Tensor, scale: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        scaled(train, test, scale=scale)


def test_one_scale_can_be_said_of_splits_of_two_types_or_of_dark_ones() -> None:
    assert scaled(BYTES * 15, FLOATS * 15, scale=255).scale == 255
    assert scaled(FLOATS * 15, FLOATS / 16, scale=255).scale == 255
    assert scaled(FLOATS, torch.zeros(4, 1, 17, 2)).scale == 16  # black images say nothing
    for wrong in (0, -1, float("nan"), "atuo", None):
        with pytest.raises(ConfigError, match="scale must be"):
            scaled(FLOATS, FLOATS, scale=wrong)
    images, labels = TensorImages(FLOATS), torch.tensor([0, 1, 0, 1])
    split = Split(images, labels, torch.zeros(1), torch.ones(1))
    other = Split(TensorImages(FLOATS, 255), labels, torch.zeros(1), torch.ones(1))
    with pytest.raises(DataError, match=r"one scale: white is 16.0 in those of 'train', 255.0 in those of 'test'"):
        Task("t", ("a", "b"), split, split, other)


@pytest.mark.parametrize("none", [-1, -100])
def test_a_number_that_stands_for_no_label_is_no_class(none: int) -> None:
    def task(labels: list[int]) -> Task:
        return Task.from_tensors("t", train=(FLOATS, labels), valid=(FLOATS, labels), test=(FLOATS, labels))

    with pytest.raises(DataError, match=f"'train'.*; got {none}, which stands for no label"):
        task([none, 0, 1, 1])
    with pytest.raises(DataError, match=f"got {none}, which stands for no label"):
        TensorReader(images=FLOATS, labels=[none, 0, 1, 1]).open(0)
    assert task([none, 1, none, 1]).classes == (str(none), "1")  # as of a margin
