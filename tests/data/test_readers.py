from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lasem.data import FileImages, FolderReader, TensorReader
from lasem.errors import DataError

from .fixture import all_pixels, assert_same_task, named_pixels, png, random_images, write_class_folders

IMAGES, LABELS = random_images(60), torch.arange(60) % 6
CLASSES = ["ant", "bee", "cat", "dog", "emu"]


def read(place: Path, **more: Any) -> FolderReader:
    return FolderReader(path=str(place), **({"classes_per_task": 2} | more))


def test_folders_of_classes(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "my zoo", CLASSES, 10)
    stream = read(tmp_path / "my zoo").open(1)
    assert [task.name for task in stream] == ["my-zoo-0", "my-zoo-1"]
    assert {task.image_shape for task in stream} == {(3, 6, 6)}
    assert named_pixels(stream) == {
        pixels.numpy().tobytes(): name
        for task in stream
        for name in task.classes
        for pixels in random_images(10, (3, 6, 6), CLASSES.index(name))
    }


@pytest.mark.parametrize(
    ("valid_name", "has_valid", "has_test"), [("valid", True, True), ("val", True, False), ("", False, True)]
)
def test_folders_of_splits(tmp_path: Path, valid_name: str, has_valid: bool, has_test: bool) -> None:
    write_class_folders(tmp_path / "train", CLASSES, 10)
    if has_valid:
        write_class_folders(tmp_path / valid_name, CLASSES, 4, seed=1)
    if has_test:
        write_class_folders(tmp_path / "test", CLASSES, 3, seed=2)
    task = read(tmp_path).open(0)[0]
    assert len(task.valid) == 2 * (4 if has_valid else round(0.15 * (10 if has_test else 8)))
    assert len(task.test) == 2 * (3 if has_test else 2)
    if has_test:
        expected = random_images(3, (3, 6, 6), 2000 + CLASSES.index(task.classes[0]))
        assert torch.equal(all_pixels(task.test)[task.test.labels == 0], expected)


@pytest.mark.parametrize("more", [{}, {"image_size": 5}, {"channels": 1}, {"standardise": "split"}])
def test_decoding_on_demand_gives_the_same_bits(tmp_path: Path, more: dict[str, Any]) -> None:
    write_class_folders(tmp_path, CLASSES, 8)
    in_memory, on_demand = read(tmp_path, **more).open(0), read(tmp_path, memory_limit_mb=0, **more).open(0)
    for first, second in zip(in_memory, on_demand, strict=True):
        assert_same_task(first, second)
        for (images, _), (others, _) in zip(first.train.batches(3), second.train.batches(3), strict=True):
            assert torch.equal(images, others)


def test_the_order_does_not_depend_on_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_class_folders(tmp_path, CLASSES, 6)
    forwards = read(tmp_path).open(0)[0]
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter(sorted(listed(folder), reverse=True)))
    assert_same_task(read(tmp_path).open(0)[0], forwards)


def test_hidden_files_and_other_files_are_passed_over_and_links_followed(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "data", CLASSES[:2], 6)
    before = read(tmp_path / "data").open(0)[0]
    (tmp_path / "data" / "ant" / "notes.txt").write_text("no image")
    (tmp_path / "data" / "ant" / ".hidden.png").write_text("no image")
    (tmp_path / "data" / ".git").mkdir()
    (tmp_path / "data" / "README.md").write_text("no folder")
    (tmp_path / "data" / "bee").rename(tmp_path / "elsewhere")
    (tmp_path / "data" / "bee").symlink_to(tmp_path / "elsewhere")
    assert_same_task(read(tmp_path / "data").open(0)[0], before)


def test_images_may_lie_deeper_than_their_class(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "flat", CLASSES[:2], 6)
    write_class_folders(tmp_path / "deep", CLASSES[:2], 6)
    for number in range(4, 6):  # behind the others also as paths
        for name in CLASSES[:2]:
            below = tmp_path / "deep" / name / "more" / "still more"
            below.mkdir(parents=True, exist_ok=True)
            (tmp_path / "deep" / name / f"00{number}.png").rename(below / f"00{number}.png")
    (tmp_path / "deep" / "ant" / ".thumbnails").mkdir()
    (tmp_path / "deep" / "ant" / ".thumbnails" / "000.png").write_text("no image")
    for first, second in zip(read(tmp_path / "flat").open(0), read(tmp_path / "deep").open(0), strict=True):
        assert first.classes == second.classes
        assert torch.equal(all_pixels(first.train), all_pixels(second.train))
    (tmp_path / "deep" / "ant" / "more").rename(tmp_path / "deep" / "ant" / "test")
    with pytest.raises(DataError, match=r"split there, 'test'\. Put splits above the classes: test/ant/"):
        read(tmp_path / "deep").open(0)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write_class_folders(tmp_path, ["bus", "test", "train"], 6)
    assert sorted(read(tmp_path, classes_per_task=3).open(0)[0].classes) == ["bus", "test", "train"]


@pytest.mark.parametrize("memory_limit_mb", [1024, 0])
def test_a_damaged_file_is_named_before_any_training(tmp_path: Path, memory_limit_mb: int) -> None:
    write_class_folders(tmp_path, CLASSES[:2], 6, size=40)
    damaged = tmp_path / "bee" / "003.png"
    damaged.write_bytes(damaged.read_bytes()[:-300])
    with pytest.raises(DataError, match=r"bee/003\.png cannot: "):
        read(tmp_path, memory_limit_mb=memory_limit_mb).open(0)[0]


def test_a_file_that_is_no_image_is_named_when_the_stream_is_opened(tmp_path: Path) -> None:
    write_class_folders(tmp_path, CLASSES[:2], 6)
    (tmp_path / "ant" / "000.png").write_text("no image")
    with pytest.raises(DataError, match=r"ant/000\.png cannot: "):
        read(tmp_path, memory_limit_mb=0).open(0)


def test_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "zoo", CLASSES, 6)
    with pytest.raises(DataError, match=r"Expected a file or folder at .*zo, but there is none.* Did you mean 'zoo'"):
        read(tmp_path / "zo").open(0)
    with pytest.raises(DataError, match=r"folder of images at .*000\.png, but it is a file"):
        read(tmp_path / "zoo" / "ant" / "000.png").open(0)
    with pytest.raises(DataError, match=r"folder for each class in .*ant, but it holds no folder"):
        read(tmp_path / "zoo" / "ant").open(0)
    (tmp_path / "zoo" / "bee" / "007.png").write_bytes(png(random_images(1, (3, 6, 7))[0]))
    with pytest.raises(DataError, match=r"as large as .*, 6x6 .*bee/007\.png is 6x7\. Set image_size"):
        read(tmp_path / "zoo", classes_per_task=5).open(0)
    (tmp_path / "zoo" / "fox").mkdir()
    with pytest.raises(DataError, match=r"Class 'fox' has too few images.*there are 0"):
        read(tmp_path / "zoo").open(0)


def test_splits_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "test", CLASSES, 6)
    with pytest.raises(DataError, match="Expected a folder 'train' next to 'test'"):
        read(tmp_path).open(0)
    write_class_folders(tmp_path / "train", CLASSES[:4], 6)
    with pytest.raises(DataError, match=r"classes that have training images.*got .*test/emu"):
        read(tmp_path).open(0)
    write_class_folders(tmp_path / "vaild", CLASSES, 6)
    with pytest.raises(DataError, match=r"'vaild' as well.* Did you mean 'valid'"):
        read(tmp_path).open(0)
    (tmp_path / "vaild").rename(tmp_path / "Training")
    with pytest.raises(DataError, match=r"one folder for each split.*got Training and train"):
        read(tmp_path).open(0)


def test_a_stream_larger_than_memory_stays_in_its_files(tmp_path: Path) -> None:
    write_class_folders(tmp_path, CLASSES, 6)
    taken: list[int] = []
    take = FileImages.take
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileImages, "take", lambda self, indices: taken.append(len(indices)) or take(self, indices))
        read(tmp_path, memory_limit_mb=0).open(0)
    assert not taken


def test_tensors_are_cut_into_tasks() -> None:
    stream = TensorReader(images=IMAGES, labels=LABELS * 10, classes_per_task=2, stream_name="mine").open(3)
    assert [task.name for task in stream] == ["mine-0", "mine-1", "mine-2"]
    assert named_pixels(stream) == {
        pixels.numpy().tobytes(): str(int(label) * 10) for pixels, label in zip(IMAGES, LABELS, strict=True)
    }


def test_the_same_seed_gives_the_same_bits_whatever_the_number_of_tasks() -> None:
    full = TensorReader(images=IMAGES, labels=LABELS, classes_per_task=2).open(3)
    short = TensorReader(images=IMAGES, labels=LABELS, classes_per_task=2, num_tasks=2).open(3)
    for first, second in zip(full, short, strict=False):
        assert_same_task(first, second)
    assert_same_task(full[1], full[1])


def test_splits_that_are_given_stay_apart() -> None:
    names = [f"kind{number}" for number in range(6)]
    test = random_images(12, seed=1).numpy()
    reader = TensorReader(
        images=IMAGES,
        labels=LABELS,
        test_images=test,
        test_labels=np.arange(12) % 6,
        class_names=names,
        classes_per_task=3,
    )
    task = reader.open(0)[0]
    assert set(task.classes) <= set(names)
    assert len(task.test) == 6
    for pixels in all_pixels(task.test).numpy():
        assert (test == pixels).all(axis=(1, 2, 3)).any()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"labels": LABELS[1:]}, "split 'train'.*got 60 images and 59 labels"),
        ({"class_names": ["a", "b"]}, "labels from 0 to 1.*got 2"),
        ({"test_images": IMAGES}, "images and labels for split 'test'; got one without the other"),
        (
            {"test_images": torch.rand(60, 3, 4, 5), "test_labels": LABELS},
            "on one scale; got uint8.*float32",
        ),
        ({"images": torch.full((60, 1, 2, 2), torch.nan)}, "image 0 of 60 holds NaN"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        TensorReader(**({"images": IMAGES, "labels": LABELS, "classes_per_task": 2} | more)).open(0)
