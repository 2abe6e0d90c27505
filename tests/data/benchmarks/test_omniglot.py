from pathlib import Path

import pytest

from lasem.data.benchmarks import OmniglotReader
from lasem.errors import ConfigError, DataError

from ..fixture import all_pixels, assert_same_task
from .files import write_omniglot


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("omniglot")
    write_omniglot(place)
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


def test_zip_files_are_unpacked(folder: Path, tmp_path: Path) -> None:
    write_omniglot(tmp_path)
    names = {f"Alphabet_{number}" for number in range(6)}
    assert OmniglotReader(path=str(tmp_path)).find() == tmp_path
    assert {place.name for place in tmp_path.glob("images_*/*")} == names
    for index in range(6):
        assert_same_task(*(OmniglotReader(path=str(place)).open(2)[index] for place in (folder, tmp_path)))


def test_what_cannot_be(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at most 6"):
        OmniglotReader(path=str(folder), num_tasks=7).open(0)
    with pytest.raises(DataError, match="'character01' has too few images: 20 drawings, 21"):
        OmniglotReader(path=str(folder), train_per_class=9).open(0)[0]
    (tmp_path / "images_background").mkdir()
    (tmp_path / "images_evaluation.zip").write_bytes(b"no zip file")
    with pytest.raises(DataError, match=r"an archive that can be unpacked at .*images_evaluation\.zip"):
        OmniglotReader(path=str(tmp_path)).open(0)
    (tmp_path / "images_evaluation").mkdir()
    with pytest.raises(DataError, match="there are none"):
        OmniglotReader(path=str(tmp_path)).open(0)
