from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lasem.data import Task, TaskStream, child_generator
from lasem.errors import ConfigError, DataError

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
