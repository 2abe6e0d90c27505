import shutil
import zipfile
from pathlib import Path

import pytest

from lasem.data.benchmarks import OmniglotReader
from lasem.data.benchmarks.omniglot import read_index, write_stand_in
from lasem.errors import ConfigError, DataError

from ..fixture import all_pixels, assert_same_task


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("omniglot")
    write_stand_in(place)
    return place


def test_an_alphabet_a_task(folder: Path) -> None:
    stream = OmniglotReader(path=str(folder), image_size=None).open(0)
    assert stream.num_tasks == 6
    task = stream[0]
    assert task.classes == tuple(f"character{number:02d}" for number in range(1, 6))
    assert task.image_shape == (1, 105, 105)
    assert [len(split) for split in (task.train, task.valid, task.test)] == [40, 10, 50]
    assert set(all_pixels(task.train).unique().tolist()) <= {0, 255}
    drawings = [image.numpy().tobytes() for s in (task.train, task.valid, task.test) for image in all_pixels(s)]
    assert len(set(drawings)) == 100


def test_the_seed_orders_alphabets_and_no_two_are_the_same(folder: Path) -> None:
    streams = [list(OmniglotReader(path=str(folder)).open(seed)) for seed in (0, 1)]
    firsts = [[all_pixels(task.test).sum().item() for task in stream] for stream in streams]
    assert len(set(firsts[0])) == 6
    assert firsts[0] != firsts[1]


def test_folders_and_zip_files_give_the_same(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "images_background", tmp_path / "images_background")
    with zipfile.ZipFile(folder / "images_evaluation.zip") as packed:
        packed.extractall(tmp_path)
    assert set(read_index(tmp_path)) == {f"Alphabet_{number}" for number in range(6)}
    for index in range(6):
        one, other = (OmniglotReader(path=str(place)).open(2)[index] for place in (folder, tmp_path))
        assert_same_task(one, other)


def test_what_cannot_be(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at most 6"):
        OmniglotReader(path=str(folder), num_tasks=7).open(0)
    with pytest.raises(DataError, match="'character01' has too few images: 20 drawings, 21"):
        OmniglotReader(path=str(folder), train_per_class=9).open(0)[0]
    (tmp_path / "images_background").mkdir()
    (tmp_path / "images_evaluation.zip").write_bytes(b"no zip file")
    with pytest.raises(DataError, match="there are none"):
        OmniglotReader(path=str(tmp_path)).open(0)
    shutil.copytree(folder / "images_background", tmp_path / "images_background", dirs_exist_ok=True)
    with pytest.raises(DataError, match="zip file"):
        OmniglotReader(path=str(tmp_path)).open(0)
