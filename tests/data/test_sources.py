"""A task from folders and parquet files: which images train, validate and test, and how they are made to fit."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lasem.data import Part, Task
from lasem.data.decode import DamagedError, decode
from lasem.data.sources import Source, task_from
from lasem.errors import DataError

from .fixture import random_images, write_class_folders, write_parquet


def pixels_of(task: Task) -> list[set[bytes]]:
    return [
        {image.numpy().tobytes() for image in split.images.take(torch.arange(len(split)))}
        for split in (task.train, task.valid, task.test)
    ]


def source(place: Path) -> Source:
    return Source(path=str(place))


def task_of(*places: Path, **more: Any) -> Task:
    """From places that train, validate and test."""
    return task_from("t", *map(source, places), **{"image_size": 4, "channels": 3, "seed": 0, **more})


def test_a_share_of_each_class_validates_and_nothing_is_lost(tmp_path: Path) -> None:
    place = write_class_folders(tmp_path / "all", "abc", (20, 7, 2), size=4)
    task = task_of(place)
    train, valid, test = pixels_of(task)
    assert (task.classes, task.train.labels.bincount().tolist()) == (("a", "b", "c"), [17, 6, 1])
    assert task.valid.labels.bincount().tolist() == [3, 1, 1]
    assert task.test is task.valid
    assert (len(train | valid), train & valid, test) == (29, set(), valid)
    again = task_of(place)
    other = task_of(place, seed=1)
    assert pixels_of(again) == pixels_of(task) != pixels_of(other)
    for split in (task.train, task.valid):
        for image, label in zip(split.images.take(torch.arange(len(split))), split.labels.tolist(), strict=True):
            files = (place / task.classes[label]).iterdir()
            assert any(torch.equal(image, decode(file, "", channels=3)) for file in files)


def test_other_places_validate_and_test(tmp_path: Path) -> None:
    train = write_class_folders(tmp_path / "train", "ab", 3, size=4)
    valid = write_class_folders(tmp_path / "valid", "b", 2, seed=1)
    test = write_class_folders(tmp_path / "test", "ab", (1, 2), seed=2, size=5)
    task = task_of(train, valid, test, channels=1)
    assert [len(split) for split in (task.train, task.valid, task.test)] == [6, 2, 3]
    assert task.image_shape == (1, 4, 4)
    assert task.valid.labels.tolist() == [1, 1]  # by name, not by place in its own folder
    expected = decode(valid / "b/000.png", "", channels=1, size=4)
    assert torch.equal(task.valid.images.take(torch.tensor([0]))[0], expected)
    assert torch.equal(task.test.mean, task.train.mean)


def test_splits_that_the_place_has_are_used(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("val", 2), ("test", 1)):
        write_class_folders(tmp_path / "data" / part, "ab", count, seed=count, size=4)
    task = task_of(tmp_path / "data")
    assert [len(split) for split in (task.train, task.valid, task.test)] == [6, 4, 2]
    assert len(source(tmp_path / "data").part(Part.TEST, 4, 3).labels) == 2
    (tmp_path / "data/test").rename(tmp_path / "apart")
    with pytest.raises(DataError, match=r"Expected a split 'test' in .*; there are train"):
        source(tmp_path / "data").part(Part.TEST, 4, 3)


def test_parquet_is_read_as_folders_are(tmp_path: Path) -> None:
    images = random_images(8, (3, 4, 4))
    write_parquet(tmp_path / "train.parquet", images[:6], [0, 1, 0, 1, 0, 1], names=["x", "y"])
    write_parquet(tmp_path / "test.parquet", images[6:], [1, 0], names=["x", "y"])
    whole = task_of(tmp_path)
    assert whole.classes == ("x", "y")
    assert [len(split) for split in (whole.train, whole.valid, whole.test)] == [4, 2, 2]
    one = task_of(tmp_path / "train.parquet", test=source(tmp_path / "test.parquet"))
    assert pixels_of(one) == pixels_of(whole)


def test_the_first_images_say_size_and_channels(tmp_path: Path) -> None:
    assert source(write_class_folders(tmp_path / "colour", "ab", 1, size=5)).find_shape() == (5, 3)
    for name in "ab":
        (tmp_path / "grey" / name).mkdir(parents=True)
        grey = np.random.default_rng(0).integers(0, 256, (6, 6), dtype=np.uint8)
        Image.fromarray(grey).convert("RGB").save(tmp_path / "grey" / name / "0.png")
    assert source(tmp_path / "grey").find_shape() == (6, 1)
    Image.new("RGB", (8, 7)).save(tmp_path / "grey/a/0.png")
    with pytest.raises(DataError, match=r"got 6x6 and 7x8 \(height x width\).*--image-size"):
        source(tmp_path / "grey").find_shape()
    assert [source(tmp_path / "grey").find_shape(size)[0] for size in (4, 300)] == [4, 300]
    for name in "ab":
        Image.new("L", (300, 300)).save(tmp_path / f"grey/{name}/0.png")
    with pytest.raises(DataError, match=r"at most 256 pixels a side.*got 300x300"):
        source(tmp_path / "grey").find_shape()


def test_one_image_in_colour_makes_all_of_them_so(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.new("L", (5, 5), number).save(tmp_path / name / f"{number}.png")
    assert source(tmp_path).find_shape() == (5, 1)
    Image.new("RGB", (5, 5), (1, 2, 3)).save(tmp_path / "b/2.png")
    assert source(tmp_path).find_shape() == (5, 3)


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_all_damaged_images_of_all_splits_are_named_or_left_out(kind: str, tmp_path: Path) -> None:
    if kind == "folder":
        train = write_class_folders(tmp_path / "train", "ab", 6, size=4)
        test = write_class_folders(tmp_path / "test", "ab", 2, size=4)
        damaged = {train / "a/000.png", train / "b/003.png", test / "b/001.png"}
        for file in damaged:
            file.write_bytes(file.read_bytes()[:-30])
        names = [str(file) for file in damaged]
    else:
        train, test, images = tmp_path / "train.parquet", tmp_path / "test.parquet", random_images(16, (3, 4, 4))
        write_parquet(train, images[:12], [0, 1] * 6, damaged=(0, 7))
        write_parquet(test, images[12:], [0, 1] * 2, damaged=(3,))
        names = [f"{train}, row 0", f"{train}, row 7", f"{test}, row 3"]
    with pytest.raises(DamagedError, match="but 3 cannot: ") as found:
        task_of(train, train, test)
    assert all(name in str(found.value) for name in names)
    kept = [Source(path=str(place), skip_damaged=True) for place in (train, test)]
    assert kept[0].find_shape() == (4, 3)
    task = task_from("t", kept[0], test=kept[1], image_size=4, channels=3, seed=0)
    assert (len(task.train) + len(task.valid), len(task.test), task.left_out) == (10, 3, ("3 damaged",))


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    train = write_class_folders(tmp_path / "train", ["cat", "dog"], (3, 1), size=4)
    strange = write_class_folders(tmp_path / "strange", ["cta"], 1, size=4)
    with pytest.raises(DataError, match=r"Class 'dog' has too few images in .*at least 2.*--valid"):
        task_of(train)
    with pytest.raises(DataError, match=r"Expected only the task's classes \(cat, dog\).*'cta'. Did you mean 'cat'"):
        task_of(train, strange)
    with pytest.raises(DataError, match=r"at least 2 classes to train with in .*; there are 1 \(cta\)\."):
        task_of(strange, strange)
    with pytest.raises(DataError, match="Expected a file or folder at"):
        task_of(tmp_path / "nowhere")
    (tmp_path / "train/cat/broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match=r"broken\.png"):
        task_of(train, train)


def test_an_image_is_called_by_its_file_or_its_row(tmp_path: Path) -> None:
    folder = write_class_folders(tmp_path / "all", "ab", 3, size=4)
    shutil.make_archive(str(tmp_path / "packed"), "zip", folder)
    pixels = random_images(7, (3, 4, 4))
    for number, part in enumerate((slice(0, 4), slice(4, 7))):
        write_parquet(tmp_path / f"t-0000{number}-of-00002.parquet", pixels[part], [-1, 0, 1, 0][: len(pixels[part])])

    def names(place: Path) -> list[str]:
        data = source(place).labelled(4, 3)
        kept = data.only(data.labels == 1)
        return [kept.name_of(k) for k in range(len(kept.labels))]

    assert names(folder) == [f"{folder}/b/00{k}.png" for k in range(3)]
    assert names(tmp_path / "packed.zip") == [f"{tmp_path}/packed.zip/b/00{k}.png" for k in range(3)]
    shutil.rmtree(folder)
    (tmp_path / "packed.zip").unlink()
    assert names(tmp_path) == [f"{tmp_path}/t-0000{k}-of-00002.parquet, row 2" for k in (0, 1)]
