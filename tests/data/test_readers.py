from typing import Any

import numpy as np
import pytest
import torch

from lasem.data import TensorReader
from lasem.errors import DataError

from .fixture import all_pixels, assert_same_task, named_pixels, random_images

IMAGES, LABELS = random_images(60), torch.arange(60) % 6


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
