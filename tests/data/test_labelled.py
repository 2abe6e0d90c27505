from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lasem.data import CutSettings, Labelled, Part, TensorImages
from lasem.data.labelled import TaskCut, as_label, cut
from lasem.errors import ConfigError, DataError

NAMES = [f"c{number}" for number in range(20)]


def data(train: int, valid: int = 0, test: int = 0, num_classes: int = 7) -> Labelled:
    """So many images of every class in each split, mixed."""
    each = torch.tensor([Part.TRAIN] * train + [Part.VALID] * valid + [Part.TEST] * test)
    labels, parts = torch.arange(num_classes).repeat_interleave(len(each)), each.repeat(num_classes)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    pixels = torch.zeros(len(labels), 1, 1, 1)
    return Labelled(labels[order], parts[order], NAMES, lambda used: TensorImages(pixels[used]))


def as_lists(task: TaskCut) -> tuple[Any, ...]:
    return task.classes, [part.tolist() for part in task.positions], [part.tolist() for part in task.labels]


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**70),
    classes_per_task=st.integers(2, 7),
    train_per_class=st.none() | st.integers(1, 6),
    has_valid=st.booleans(),
    has_test=st.booleans(),
)
def test_a_cut_is_disjoint_balanced_and_named(
    seed: int, classes_per_task: int, train_per_class: int | None, has_valid: bool, has_test: bool
) -> None:
    images = data(12, 3 * has_valid, 4 * has_test)
    labels, parts = images.labels, images.parts
    cuts = cut(CutSettings(classes_per_task=classes_per_task, train_per_class=train_per_class), images, seed)
    assert len(cuts) == 7 // classes_per_task
    seen_classes = [name for task in cuts for name in task.classes]
    assert len(set(seen_classes)) == len(seen_classes) == len(cuts) * classes_per_task
    every = torch.cat([part for task in cuts for part in task.positions])
    assert len(every.unique()) == len(every)
    num_test = 4 if has_test else 2  # 20 % of 12
    left = 12 - (0 if has_test else num_test)
    by_default = round(0.15 * left) if train_per_class is None else max(1, round(train_per_class * 15 / 85))
    num_valid = 3 if has_valid else by_default
    num_train = train_per_class or left - (0 if has_valid else num_valid)
    for task in cuts:
        for positions, local, count in zip(task.positions, task.labels, (num_train, num_valid, num_test), strict=True):
            assert local.bincount(minlength=classes_per_task).tolist() == [count] * classes_per_task
            assert [task.classes[label] for label in local] == [NAMES[label] for label in labels[positions]]
        if has_test:
            assert (parts[task.positions[2]] == Part.TEST).all()
        if has_valid:
            assert (parts[task.positions[1]] == Part.VALID).all()
        assert (parts[task.positions[0]] == Part.TRAIN).all()


def test_the_same_seed_gives_the_same_cut_and_another_seed_another() -> None:
    first, again, other = (
        [as_lists(task) for task in cut(CutSettings(classes_per_task=2), data(12), seed)] for seed in (5, 5, 6)
    )
    assert first == again != other


def test_a_task_does_not_depend_on_the_number_of_tasks() -> None:
    all_three = cut(CutSettings(classes_per_task=2), data(12), 5)
    for num_tasks in (1, 2):
        fewer = cut(CutSettings(classes_per_task=2, num_tasks=num_tasks), data(12), 5)
        assert [as_lists(task) for task in fewer] == [as_lists(task) for task in all_three[:num_tasks]]


def test_what_is_tested_on_does_not_depend_on_what_is_trained_on() -> None:
    tests = [
        cut(CutSettings(classes_per_task=2, **more), data(12), 5)[0].positions[2].tolist()
        for more in ({}, {"train_per_class": 3}, {"valid_per_class": 5})
    ]
    assert tests[0] == tests[1] == tests[2]


def test_the_papers_budget_is_the_default_for_validation() -> None:
    (task,) = cut(CutSettings(classes_per_task=7, train_per_class=17), data(30, test=5), 0)
    assert [len(part) // 7 for part in task.positions] == [17, 3, 5]


def test_classes_without_images_are_passed_over() -> None:
    images = data(12)
    cuts = cut(CutSettings(classes_per_task=2), images.only(images.labels != 3), 0)
    assert sorted(name for task in cuts for name in task.classes) == ["c0", "c1", "c2", "c4", "c5", "c6"]


@pytest.mark.parametrize(
    ("asked", "held", "message"),
    [
        (
            {"train_per_class": 17, "valid_per_class": 3},
            (20, 0, 0),
            r"train split .* at least 24 \(17 to train, 3 to validate, 4 to test\); it holds 20",
        ),
        (
            {"train_per_class": 17, "valid_per_class": 3},
            (19, 0, 1),
            r"train split must hold at least 20 \(17 to train, 3 to validate\); it holds 19",
        ),
        ({"valid_per_class": 5}, (19, 4, 1), r"valid split must hold at least 5 \(5 to validate\); it holds 4"),
        ({"test_per_class": 5}, (19, 4, 1), r"test split must hold at least 5 \(5 to test\); it holds 1"),
        ({}, (2, 0, 0), r"train split must hold at least 3 \(1 to train, 1 to validate, 1 to test\); it holds 2"),
    ],
)
def test_a_class_with_too_few_images_is_named(asked: dict[str, int], held: tuple[int, int, int], message: str) -> None:
    with pytest.raises(DataError, match=r"Class 'c\d' has too few images: its " + message):
        cut(CutSettings(classes_per_task=2, **asked), data(*held), 0)


def test_a_class_that_is_in_the_test_split_only_is_named() -> None:
    images = data(3, 0, 3, num_classes=2)
    parts = torch.where(images.labels == 1, Part.TEST, images.parts)
    with pytest.raises(DataError, match=r"Class 'c1' has too few images: its train split .* it holds 0"):
        cut(CutSettings(classes_per_task=2), replace(images, parts=parts), 0)


def test_more_classes_than_there_are_cannot_be_asked_for() -> None:
    with pytest.raises(
        ConfigError, match="num_tasks must be at most 3, for tasks of 2 disjoint classes out of 7; got 4"
    ):
        cut(CutSettings(num_tasks=4, classes_per_task=2), data(12), 0)
    with pytest.raises(ConfigError, match=r"classes_per_task must be at most .* 7; got 10"):
        cut(CutSettings(classes_per_task=10), data(12), 0)


@pytest.mark.parametrize(("num_classes", "found"), [(2, [2]), (7, [7]), (12, [10]), (20, [10, 10])])
def test_without_a_number_a_task_has_ten_classes_or_all(num_classes: int, found: list[int]) -> None:
    assert [len(task.classes) for task in cut(CutSettings(), data(5, num_classes=num_classes), 0)] == found


def test_labels_without_a_class_and_classes_of_one_name_are_refused() -> None:
    with pytest.raises(DataError, match=r"labels from 0 to 4.*got [56]"):
        cut(CutSettings(classes_per_task=2), replace(data(12), class_names=NAMES[:5]), 0)
    with pytest.raises(DataError, match="come more than once: c0"):
        cut(CutSettings(classes_per_task=2), replace(data(12), class_names=[*NAMES, "c0"]), 0)


def test_what_stands_for_no_label() -> None:
    labels = {" cat ": "cat", "None": "None", "-2": "-2", "0.0": "0.0", 3: 3, 2.5: 2.5, True: True}
    assert {value: as_label(value) for value in labels} == labels
    assert str(as_label(3.0)) == "3"
    none = (None, "", " ", "-1", "-1.0", "-100", "NaN", "nan", "NULL", "<NA>", -1, -100, -1.0, float("nan"))
    assert {as_label(value) for value in none} == {None}
