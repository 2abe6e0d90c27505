from collections import Counter
from itertools import combinations

import pytest
import torch
from sklearn.datasets import load_digits

from lasem.data import DigitsReader, DigitStyle, Split
from lasem.errors import ConfigError

from .fixture import all_pixels, assert_same_task, random_images


def test_tasks_differ_in_classes_and_in_style_and_stay_uint8() -> None:
    reader = DigitsReader()
    tasks = list(reader.open(0))
    assert [task.name for task in tasks] == [f"digits-{index}" for index in range(6)]
    assert len({task.classes for task in tasks}) > 1
    assert len({reader.style(0, index) for index in range(6)}) > 3
    for task in tasks:
        assert (task.image_shape, task.train.labels.bincount().tolist()) == ((1, 8, 8), [20] * 5)
        assert task.valid.labels.bincount().tolist() == [10] * 5
        assert len(task.test) >= 5 * 44
        assert all_pixels(task.test).dtype == torch.uint8


def test_the_first_task_shows_the_digits_as_they_are() -> None:
    data = load_digits()
    images = (torch.from_numpy(data.images) * 255 / 16).round().to(torch.uint8)
    task = DigitsReader().open(4)[0]
    for pixels, name in zip(all_pixels(task.train)[:, 0], task.names_of(task.train.labels), strict=True):
        assert str(data.target[int((images == pixels).flatten(1).all(dim=1).nonzero()[0])]) == name


def test_no_task_trains_on_an_image_that_another_tests_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DigitsReader, "style", lambda *_: DigitStyle())
    levels = (torch.from_numpy(load_digits().images) * 255 / 16).round().to(torch.uint8)
    times = Counter(image.numpy().tobytes() for image in levels)
    assert max(times.values()) == 1  # no image is in the data twice, whatever it is called

    def seen(splits: list[Split]) -> set[bytes]:
        return {image.numpy().tobytes() for split in splits for image in all_pixels(split)}

    tasks = list(DigitsReader(num_tasks=3, classes_per_task=8, train_per_class=104, valid_per_class=26).open(1))
    parts = [seen([getattr(task, part) for task in tasks]) for part in ("train", "valid", "test")]
    assert [len(part) > 0.9 * share * 1797 for part, share in zip(parts, (0.6, 0.15, 0.25), strict=True)] == [True] * 3
    assert set.union(*parts) <= times.keys()
    for one, other in combinations(parts, 2):
        assert not one & other


def test_the_images_are_parted_whole() -> None:
    pools = DigitsReader()._pools(torch.from_numpy(load_digits().target).long(), 0)
    parts = [torch.cat([of_digit[part] for of_digit in pools]) for part in range(3)]
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(1797))
    shares = [len(part) / 1797 for part in parts]
    assert shares == pytest.approx([0.6, 0.15, 0.25], abs=0.01)


def test_a_task_depends_on_the_seed_and_its_index_alone() -> None:
    short, long, other = DigitsReader(num_tasks=3).open(1), DigitsReader(num_tasks=9).open(1), DigitsReader().open(2)
    for index in (2, 0):
        assert_same_task(short[index], long[index])
    assert not torch.equal(all_pixels(other[0].test)[:50], all_pixels(long[0].test)[:50])


def test_a_style_is_what_it_says() -> None:
    images, generator = random_images(6, (1, 8, 8)), torch.Generator().manual_seed(0)
    assert torch.equal(DigitStyle().apply(images, generator), images)
    assert torch.equal(DigitStyle(contrast=-1.0).apply(images, generator), 255 - images)
    assert torch.equal(DigitStyle(quarter_turns=1).apply(images, generator), images.transpose(2, 3).flip(2))
    grey = torch.full((400, 1, 8, 8), 128, dtype=torch.uint8)
    noisy = DigitStyle(noise_mean=0.1, noise_std=0.1).apply(grey, generator).double() / 255
    assert noisy.mean().item() == pytest.approx(0.602, abs=0.01)
    assert noisy.std().item() == pytest.approx(0.1, abs=0.01)


def test_more_images_than_there_are_cannot_be_asked_for() -> None:
    DigitsReader(train_per_class=104, valid_per_class=26, test_per_class=44).open(0)
    for setting, most in (("train_per_class", 104), ("valid_per_class", 26), ("test_per_class", 44)):
        with pytest.raises(ConfigError, match=f"DigitsReader.{setting} must be at least 1 and at most {most}"):
            DigitsReader(**{setting: most + 1})
