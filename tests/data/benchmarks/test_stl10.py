from pathlib import Path

import numpy as np
import pytest
import torch

from lasem.data.benchmarks import Stl10Reader
from lasem.data.benchmarks.stl10 import Style
from lasem.errors import ConfigError, DataError

from ..fixture import all_pixels
from .files import write_stl10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("stl") / "stl10_binary"
    place.mkdir()
    write_stl10(place)
    return place.parent


def test_files_hold_channel_by_channel_and_column_by_column(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (40, 3, 96, 96), dtype=np.uint8)  # channel, row, column
    for part in ("train", "test"):
        with (tmp_path / f"{part}_X.bin").open("wb") as file:
            for image in pixels:
                for channel in image:
                    for column in range(96):
                        file.write(channel[:, column].tobytes())
        (tmp_path / f"{part}_y.bin").write_bytes(bytes([1 + number % 10 for number in range(40)]))
    (tmp_path / "class_names.txt").write_text("\n".join(f"c{k}" for k in range(10)))
    reader = Stl10Reader(path=str(tmp_path), train_share=1.0, valid_share=0.25, num_tasks=1, tasks_seed=1)
    task = reader.open(0)[0]
    style = reader.style(0, 0)
    shown = {torch.from_numpy(image[list(style.channels)].copy()).numpy().tobytes() for image in pixels}
    if not (style.noise_mean or style.noise_std):
        assert all(image.numpy().tobytes() in shown for image in all_pixels(task.test))
    plain = Style(noise_mean=0.0, noise_std=0.0, channels=(0, 1, 2))
    assert torch.equal(plain.apply(torch.from_numpy(pixels), torch.Generator()), torch.from_numpy(pixels))


def test_noise_and_channels_are_as_they_are_defined() -> None:
    images = torch.randint(0, 256, (5, 3, 6, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    style = Style(noise_mean=-0.05, noise_std=0.025, channels=(2, 0, 1))
    made = style.apply(images, torch.Generator().manual_seed(1))
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1)).double() * 0.025 - 0.05
    wanted = ((images.double() / 255 + noise).clip(0, 1) * 255).round()
    exact = style.apply(images, torch.Generator().manual_seed(1), rounded=False)  # as in the authors' code
    torch.testing.assert_close(exact.double(), (images.double() / 255 + noise).clip(0, 1)[:, [2, 0, 1]])
    for place, channel in enumerate((2, 0, 1)):
        assert ((made[:, place].double() - wanted[:, channel]).abs() <= 1).all()  # float32 rounds some up
        assert (made[:, place].double() != wanted[:, channel]).float().mean() < 0.01


def test_tasks_are_those_of_the_paper(folder: Path) -> None:
    reader = Stl10Reader(path=str(folder), num_tasks=4)
    task = reader.open(0)[1]
    assert (task.num_classes, task.image_shape) == (3, (3, 96, 96))
    # a quarter of 40 training images a class, of which 15 % validate, rounded up
    assert [len(split) for split in (task.train, task.valid, task.test)] == [24, 6, 60]
    assert (task.train.mean.tolist(), task.train.std.tolist()) == ([0.5] * 3, [1.0] * 3)
    images, _ = next(task.train.batches(24))
    assert images.min() >= -0.5
    assert images.max() <= 0.5
    every = Stl10Reader().classes(0)
    assert len(set(every)) == len(every) == 20
    styles = [Stl10Reader().style(0, index) for index in range(20)]
    assert {round(style.noise_mean / 0.025) for style in styles} == {-2, -1, 0, 1}
    assert {round(style.noise_std / 0.025) for style in styles} == {0, 1}
    assert len({style.channels for style in styles}) > 3


def test_tasks_are_the_same_in_all_runs_but_images_are_not(folder: Path) -> None:
    one, other = (Stl10Reader(path=str(folder), num_tasks=2).open(seed) for seed in (0, 1))
    assert one[0].classes == other[0].classes
    assert not torch.equal(all_pixels(one[0].train), all_pixels(other[0].train))
    free = Stl10Reader(tasks_seed=None)
    assert free.classes(0) != free.classes(1)
    assert free.classes(0) == Stl10Reader(tasks_seed=0).classes(7)


def test_what_cannot_be(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at most 120; got 121"):
        Stl10Reader(num_tasks=121)
    with pytest.raises(ConfigError, match="tasks_seed"):
        Stl10Reader(tasks_seed=-1)
    with pytest.raises(DataError, match="Raise train_share"):
        Stl10Reader(path=str(folder), train_share=0.03).open(0)[0]
    for file in (folder / "stl10_binary").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "test_y.bin").write_bytes(bytes([11]) + (tmp_path / "test_y.bin").read_bytes()[1:])
    with pytest.raises(DataError, match=r"labels from 1 to 10 in .*test_y\.bin"):
        Stl10Reader(path=str(tmp_path)).open(0)
    (tmp_path / "train_X.bin").write_bytes(b"short")
    with pytest.raises(DataError, match=r"bytes in .*train_X\.bin"):
        Stl10Reader(path=str(tmp_path)).open(0)
