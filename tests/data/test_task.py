from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lasem.data import Task
from lasem.errors import DataError

from .fixture import random_images, random_split, random_task


def test_labels_go_to_names_and_back() -> None:
    task = random_task(num_classes=3)
    assert task.names_of(torch.tensor([2, 0])) == ["class2", "class0"]
    assert [task.label_of(name) for name in task.classes] == [0, 1, 2]
    assert (task.num_classes, task.image_shape) == (3, (3, 4, 5))
    with pytest.raises(DataError, match=r"no class 'clas2'.*Did you mean 'class2'"):
        task.label_of("clas2")
    with pytest.raises(DataError, match=r"labels from 0 to 2.*got 3"):
        task.names_of(torch.tensor([3]))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "ü", "a\n", "x" * 101])
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
    assert task.classes == ("-5", "7", "40")
    assert task.train.labels.tolist() == [0, 2, 1]
    assert task.test.labels.tolist() == [2]


def test_named_labels_are_positions() -> None:
    part = (torch.rand(3, 8, 8), torch.tensor([2, 0, 2]))
    task = Task.from_tensors("mine", train=part, valid=part, test=part, classes=["a", "b", "c"])
    assert task.names_of(task.train.labels) == ["c", "a", "c"]
    assert task.image_shape == (1, 8, 8)


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
