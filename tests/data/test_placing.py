from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lasem.data import (
    AbstractImages,
    FileImages,
    SelectedImages,
    Split,
    Task,
    TensorImages,
    placing,
    task_on,
)
from lasem.data import split as split_module
from lasem.data.placing import PlacedImages, free_bytes, num_bytes

from .fixture import all_pixels, assert_same_task, random_images, random_split, write_class_folders

CPU = torch.device("cpu")


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
    patch.setattr(placing, "free_bytes", lambda device: free)


@pytest.mark.parametrize("kind", ["bytes", "floats", "selected", "files"])
def test_batches_of_placed_images_are_the_same_to_the_bit(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = images_of(kind, tmp_path)
    split = Split(images, torch.arange(9) % 2, torch.tensor([0.1, 0.2, 0.3]), torch.tensor([1.0, 0.7, 3.0]))
    monkeypatch.setattr(placing, "_CHUNK_BYTES", 100)  # two images
    monkeypatch.setattr(split_module, "_CHUNK_BYTES", 4 * 48 * 4)
    pretend(monkeypatch, 10**6)
    task = task_of(split, split, split)
    placed = task_on(task, CPU, 1.0)
    assert isinstance(placed.train.images, PlacedImages)
    assert placed.train.images.tensor.dtype == images.take(torch.arange(1)).dtype  # bytes stay bytes
    assert placed.train is placed.valid is placed.test  # one copy of one split
    assert_same_task(task, placed)
    assert num_bytes(split) == num_bytes(placed.train) == placed.train.images.tensor.nbytes + 9 * 8
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
    train, valid = num_bytes(task.train), num_bytes(task.valid)
    assert (train, valid) == (6 * (60 + 8), 4 * (60 + 8))

    def placed(free: int, share: float) -> tuple[bool, bool, bool]:
        pretend(monkeypatch, free)
        there = task_on(task, CPU, share)
        train, valid, test = (isinstance(s.images, PlacedImages) for s in (there.train, there.valid, there.test))
        return train, valid, test

    assert placed(train + valid, 1.0) == (True, True, False)
    assert placed(2 * (train + valid), 0.5) == (True, True, False)
    assert placed(train + valid - 1, 1.0) == (True, False, False)
    assert placed(train - 1, 1.0) == (False, True, False)  # the smaller one alone
    assert placed(valid - 1, 1.0) == placed(10**9, 0.0) == (False, False, False)
    assert task_on(task, CPU, 0.0) is task


def test_the_memory_is_the_placed_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(random_split(6))
    pretend(monkeypatch, 10**9)
    placed = task_on(task, CPU, 1.0)
    assert isinstance(placed.train.images, PlacedImages)
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
    object.__setattr__(split, "images", PlacedImages(torch.empty(9, 3, 4, 5, dtype=torch.uint8, device="meta")))
    for name in ("labels", "mean", "std"):
        object.__setattr__(split, name, getattr(split, name).to("meta"))
    epochs.append(list(split.batches(2, device="meta", generator=torch.Generator())))
    assert crossings == [(9,)]
    for epoch in epochs:
        assert [len(x) for x, _ in epoch] == [2, 2, 2, 2, 1]
        assert {t.device.type for batch in epoch for t in batch} == {"meta"}
