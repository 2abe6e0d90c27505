from dataclasses import replace

import pytest
import torch
from data.fixture import all_pixels, assert_same_task

from lasem.errors import ConfigError
from lasem.experiments import ExperimentConfig
from paper.planted_stream import PlantedReader, answers

SMALL = PlantedReader(num_tasks=4, train_per_class=5, valid_per_class=3, test_per_class=4, truth=("TSTS", "SSSS"))


def test_teachers_share_just_the_planted_layers() -> None:
    first = SMALL.teacher(0, 0)
    assert [tuple(weight.shape) for weight in first] == [
        (8, 1, 3, 3),
        (8, 8, 3, 3),
        (16, 8, 3, 3),
        (16, 16, 3, 3),
        (4, 64),
    ]
    for index, truth in ((1, "TSTS"), (2, "SSSS"), (3, "TSTS")):
        assert SMALL.truth_of(index) == truth
        *kernels, head = SMALL.teacher(0, index)
        same = [torch.equal(own, shared) for own, shared in zip(kernels, first, strict=False)]
        assert "".join("T" if equal else "S" for equal in same) == truth
        assert not torch.equal(head, first[-1])
    assert SMALL.truth_of(0) is None
    others = [SMALL.teacher(0, index)[1] for index in (1, 2, 3)]  # own layers are each task's own
    assert not torch.equal(others[0], others[1])
    assert not torch.equal(others[0], others[2])


def test_answers_are_a_network_written_naively() -> None:
    teacher = SMALL.teacher(1, 1)
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    given = answers(teacher, images)
    for image, wanted in zip(images.double(), given, strict=True):
        x = image
        for layer, kernel in enumerate(teacher[:-1]):
            out = torch.zeros(len(kernel), *x.shape[1:], dtype=torch.float64)
            padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
            for row in range(3):
                for column in range(3):
                    patch = padded[:, row : row + x.shape[1], column : column + x.shape[2]]
                    out += torch.einsum("oi,ihw->ohw", kernel[:, :, row, column].double(), patch)
            x = out.clamp_min(0)
            if layer % 2 == 1:
                x = torch.stack([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]).amax(0)
        torch.testing.assert_close(teacher[-1].double() @ x.flatten(), wanted.double(), rtol=1e-4, atol=1e-4)


def test_labels_are_the_teachers_answers() -> None:
    task = SMALL.open(3)[1]
    assert task.classes == ("answer-0", "answer-1", "answer-2", "answer-3")
    assert [len(split) for split in (task.train, task.valid, task.test)] == [20, 12, 16]
    images = torch.cat([all_pixels(split) for split in (task.train, task.valid, task.test)])
    labels = torch.cat([split.labels for split in (task.train, task.valid, task.test)])
    assert len(torch.unique(images.flatten(1), dim=0)) == 48  # no image twice
    # raw answers differ in level and size, which the reader takes out: what is left is a line for each answer
    said = answers(SMALL.teacher(3, 1), images)
    for number in range(4):
        mine, others = said[labels == number, number], said[labels != number, number]
        assert mine.mean() > others.mean() + others.std()


def test_more_training_images_are_the_same_and_others() -> None:
    few, many = SMALL.open(0)[2], replace(SMALL, train_per_class=9).open(0)[2]
    assert torch.equal(all_pixels(few.test), all_pixels(many.test))
    assert torch.equal(all_pixels(few.valid), all_pixels(many.valid))
    for label in range(4):
        one, other = (all_pixels(task.train)[task.train.labels == label] for task in (few, many))
        assert torch.equal(one, other[:5])


def test_the_seed_decides_everything() -> None:
    assert_same_task(SMALL.open(0)[1], SMALL.open(0)[1])
    assert not torch.equal(all_pixels(SMALL.open(0)[1].train), all_pixels(SMALL.open(1)[1].train))


@pytest.mark.parametrize("truth", [(), ("TT", "TTT"), ("TX",), ("",)])
def test_truths_that_cannot_be(truth: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="configurations of one depth"):
        PlantedReader(truth=truth)


def test_the_stream_has_a_short_name() -> None:
    config = ExperimentConfig.from_plain({"stream": {"name": "planted", "num_tasks": 2}})
    assert (config.stream, config.to_plain()["stream"]["name"]) == (PlantedReader(num_tasks=2), "planted")
    assert ExperimentConfig.from_yaml(config.to_yaml()) == config
