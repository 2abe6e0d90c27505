from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lasem import Learner, TrainingConfig
from lasem.data import CtrlReader, Split, Task
from lasem.data.digits import labelled_digits
from lasem.data.task import Truth
from lasem.errors import ConfigError, DataError
from lasem.nets import digits

from .fixture import all_pixels, assert_same_task, write_class_folders

KINDS = ("s-minus", "s-plus", "s-in", "s-out", "s-pl")


def reader(kind: Any, **settings: Any) -> CtrlReader:
    return CtrlReader(kind=kind, **{"classes_per_task": 3, **settings})


def images_of(split: Split) -> set[bytes]:
    return {image.numpy().tobytes() for image in all_pixels(split)}


def splits(task: Task) -> tuple[Split, Split, Split]:
    return task.train, task.valid, task.test


@pytest.mark.parametrize(
    ("kind", "first", "last", "truth"),
    [
        ("s-minus", 90, 10, Truth("ctrl-0", "all")),
        ("s-plus", 10, 90, Truth("ctrl-0", "all")),
        ("s-in", 90, 10, Truth("ctrl-0", "last")),
        ("s-out", 90, 10, Truth("ctrl-0", "all")),
        ("s-pl", 10, 90, Truth(None, "none")),
    ],
)
def test_the_last_task_is_related_to_the_first(kind: str, first: int, last: int, truth: Truth) -> None:
    tasks = list(reader(kind).open(0))
    assert [task.truth for task in tasks] == [Truth(None, "none")] * 6 + [truth]
    assert [len(task.train) // 3 for task in tasks] == [first, *[10] * 5, last]
    assert [len(task.valid) // 3 for task in tasks] == [
        first // 9 if first == 90 else 5,
        *[5] * 5,
        10 if last == 90 else 5,
    ]
    same = set(tasks[0].classes) == set(tasks[-1].classes)
    assert same == (kind != "s-pl")
    assert (tasks[0].classes == tasks[-1].classes) == (same and kind != "s-out")
    for between in tasks[1:-1]:
        assert not {*between.classes} & {*tasks[0].classes, *tasks[-1].classes}


@pytest.mark.parametrize("kind", KINDS)
def test_no_image_is_in_two_splits_and_labels_are_the_images_own(kind: str) -> None:
    data = labelled_digits()
    known = {
        image.numpy().tobytes(): data.class_names[int(label)]
        for image, label in zip(
            data.take(torch.arange(len(data.labels))).take(torch.arange(1797)), data.labels, strict=True
        )
    }
    seen: Counter[bytes] = Counter()
    for task in reader(kind, transformation="inverted").open(1):
        upright = kind == "s-in" and task.name == "ctrl-6"
        for split in splits(task):
            pixels = 255 - all_pixels(split) if upright else all_pixels(split)
            for image, name in zip(pixels, task.names_of(split.labels), strict=True):
                assert known[image.numpy().tobytes()] == name
                seen[image.numpy().tobytes()] += 1
    assert max(seen.values()) == 1


def test_inputs_are_transformed_alike_in_all_splits(tmp_path: Path) -> None:
    place = write_class_folders(tmp_path / "data", [f"c{k}" for k in range(6)], 60)
    settings: dict[str, Any] = {
        "source": "files",
        "path": str(place),
        "train_large": 20,
        "valid_large": 5,
        "distractors": 1,
    }
    plain = list(reader("s-minus", **settings).open(0))[-1]

    def pixels(transformation: str, part: str) -> Tensor:
        task = reader("s-in", transformation=transformation, **settings).open(0)[-1]
        return all_pixels(getattr(task, part)).to(torch.int64)

    orders = []
    for part in ("train", "valid", "test"):
        before = all_pixels(getattr(plain, part)).to(torch.int64)
        assert torch.equal(pixels("inverted", part), 255 - before)
        noise = pixels("noise", part) - before
        assert 20 < noise.to(torch.float32).std() < 45
        after = pixels("channels", part)
        orders.append([[torch.equal(after[:, k], before[:, j]) for j in range(3)].index(True) for k in range(3)])
    assert orders[0] == orders[1] == orders[2] != [0, 1, 2]


@pytest.mark.parametrize("seed", range(4))
def test_a_long_stream_repeats_half_of_its_tasks_with_other_images(seed: int) -> None:
    stream = reader("s-long", num_tasks=7, classes_per_task=2, train_large=60, valid_large=5)
    tasks = list(stream.open(seed))
    by_name = {task.name: task for task in tasks}
    repeats = [task for task in tasks if task.truth is not None and task.truth.source is not None]
    assert [len(repeats), len(tasks)] == [3, 7]
    assert [task.truth.layers for task in repeats if task.truth] == ["all", "all", "last"]
    new = [task for task in tasks if task not in repeats]
    assert len({name for task in new for name in task.classes}) == 8
    for task in repeats:
        assert task.truth is not None
        source = by_name[str(task.truth.source)]
        assert tasks.index(source) < tasks.index(task)
        assert set(task.classes) == set(source.classes)
        assert len(task.train) < len(source.train)
    assert max(Counter(task.truth.source for task in repeats if task.truth).values()) == 1


def test_the_seed_decides_everything() -> None:
    for kind in (*KINDS, "s-long"):
        again, other = ([*reader(kind, num_tasks=4, distractors=1).open(seed)] for seed in (0, 1))
        for one, two in zip(reader(kind, num_tasks=4, distractors=1).open(0), again, strict=True):
            assert_same_task(one, two)
        assert any(images_of(one.train) != images_of(two.train) for one, two in zip(again, other, strict=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "s-minus", "classes_per_task": 6}, "needs 12 classes for its tasks of 6; there are 10"),
        ({"kind": "s-in", "transformation": "channels"}, "needs images in colour"),
        ({"kind": "s-pl", "source": "files"}, "path is needed for source files"),
        ({"kind": "s-pl", "path": "somewhere"}, "not used for digits"),
    ],
)
def test_what_cannot_be_cut_is_refused(settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CtrlReader(**settings).open(0)


def test_too_few_images_are_said_with_the_numbers() -> None:
    with pytest.raises(
        DataError, match=r"too few images for the 2 tasks with it, .* one needs 155 to train and validate"
    ):
        reader("s-minus", train_large=145).open(0)


def test_the_truth_is_in_the_records() -> None:
    learner = Learner(digits(), training=TrainingConfig(epochs=1, batch_size=90))
    records = [learner.learn(task) for task in reader("s-in", distractors=0, train_large=30).open(0)]
    assert [(record.true_source, record.true_layers) for record in records] == [(None, "none"), ("ctrl-0", "last")]
