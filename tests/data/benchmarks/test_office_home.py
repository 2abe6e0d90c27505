from pathlib import Path

import pytest
import torch

from lasem.data.benchmarks import OfficeHomeIncrementalReader, OfficeHomeReader
from lasem.data.benchmarks.folders import CLASSES, TASK_CLASSES
from lasem.errors import DataError

from ..fixture import all_pixels
from .files import write_office_home


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("office-home")
    write_office_home(place / "OfficeHomeDataset_10072016")
    return place


def test_ten_tasks_over_two_domains(folder: Path) -> None:
    stream = OfficeHomeReader(path=str(folder), image_size=16).open(0)
    assert stream.num_tasks == 10
    assert sorted(number for task in TASK_CLASSES for number in task) == list(range(65))
    first, same_classes = stream[0], stream[5]
    assert (first.classes, first.classes[:2]) == (same_classes.classes, ("TV", "Sneakers"))
    assert not torch.equal(all_pixels(first.train), all_pixels(same_classes.train))  # of another domain
    for task in (first, same_classes):
        assert task.image_shape == (3, 16, 16)
        # 60, 10 and 30 % of ten images of 13 classes
        assert [len(split) for split in (task.train, task.valid, task.test)] == [78, 13, 39]
        assert (task.train.mean.tolist(), task.train.std.tolist()) == ([0.0] * 3, [1.0] * 3)


def test_a_class_is_parted_by_the_seed_without_overlap(folder: Path) -> None:
    def images(seed: int) -> list[set[bytes]]:
        task = OfficeHomeReader(path=str(folder), num_tasks=1, image_size=16).open(seed)[0]
        return [{image.numpy().tobytes() for image in all_pixels(s)} for s in (task.train, task.valid, task.test)]

    one, other = images(0), images(1)
    assert sum(map(len, one)) == 130
    assert len(set().union(*one)) == 130
    assert set().union(*one) == set().union(*other)
    assert one[2] != other[2]


def test_incremental_tasks_grow_by_a_class_and_never_train_on_what_another_tests_on(folder: Path) -> None:
    tasks = list(OfficeHomeIncrementalReader(path=str(folder), image_size=16).open(0))
    assert [task.num_classes for task in tasks] == [3, 4, 5, 6, 7, 8]
    assert tasks[0].classes == ("Couch", "Table", "Paper_Clip")
    assert [task.classes[-1] for task in tasks[1:]] == ["Clipboards", "Bucket", "Notebook", "Bed", "Trash_Can"]
    trained = {image.numpy().tobytes() for task in tasks for image in all_pixels(task.train)}
    assert not trained & {image.numpy().tobytes() for task in tasks for image in all_pixels(task.test)}


def test_fewer_images_and_other_names_of_the_second_domain(folder: Path, tmp_path: Path) -> None:
    place = folder / "OfficeHomeDataset_10072016"
    for name, other in (("Product", "Product"), ("Real World", "RealWorld")):
        (tmp_path / other).symlink_to(place / name)
    task = OfficeHomeReader(path=str(tmp_path), image_size=8, images_per_class=10, num_tasks=6).open(0)[5]
    assert len(task.train) == 78


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "Product").mkdir()
    with pytest.raises(DataError, match="there is no Real World or RealWorld"):
        OfficeHomeReader(path=str(tmp_path)).open(0)
    (tmp_path / "Real World").mkdir()
    with pytest.raises(DataError, match="none for Alarm_Clock, Backpack"):
        OfficeHomeReader(path=str(tmp_path)).open(0)
    for name in CLASSES:
        (tmp_path / "Product" / name).mkdir()
        (tmp_path / "Real World" / name).mkdir()
    with pytest.raises(DataError, match="'TV' has too few images: 0"):
        OfficeHomeReader(path=str(tmp_path)).open(0)[0]
    with pytest.raises(DataError, match="cannot be fetched by a program"):
        OfficeHomeReader(path=str(tmp_path / "nothing"), download=True).open(0)
