from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from lasem.data import Task, TaskStream, child_generator
from lasem.errors import ConfigError, DataError

from .fixture import random_task


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
