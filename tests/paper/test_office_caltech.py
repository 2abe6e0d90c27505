import io
from pathlib import Path

import pytest
import torch

from lasem.errors import DataError
from paper.office_caltech import CLASSES, DOMAINS, OfficeCaltechReader
from paper.reproduce import RECIPES
from paper.streams import Scale


def write(path: Path, num_images: int) -> Path:
    """A file of one-coloured images, whose green says the class and whose blue the domain."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq
    from PIL import Image

    rows = []
    for blue, domain in enumerate(DOMAINS):
        for green, name in enumerate(sum(CLASSES, ())):
            for red in range(num_images):
                data = io.BytesIO()
                Image.new("RGB", (2, 2), (red, green, blue)).save(data, "PNG")
                rows.append({"image": {"bytes": data.getvalue()}, "label": name, "domain": domain})
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_four_tasks_of_five_classes_in_two_domains(tmp_path: Path) -> None:
    path = write(tmp_path / "office.parquet", 12)
    tasks = list(OfficeCaltechReader(path=str(path), image_size=2, images_per_class=10).open(0))
    assert [task.classes for task in tasks] == [*CLASSES, *CLASSES]
    for number, task in enumerate(tasks):
        reds = []
        for split, each in ((task.train, 6), (task.valid, 1), (task.test, 3)):
            pixels = (split.images.take(torch.arange(len(split)))[:, :, 0, 0]).long()
            assert split.labels.bincount().tolist() == [each] * 5
            assert (pixels[:, 1] - 5 * (number % 2)).tolist() == split.labels.tolist()
            assert set(pixels[:, 2].tolist()) == {number // 2}
            reds += [tuple(pixel) for pixel in pixels.tolist()]
        assert len(set(reds)) == 50  # no image in two splits
    with pytest.raises(DataError, match="Expected 20 images of 'backpack' in domain 'amazon'"):
        next(iter(OfficeCaltechReader(path=str(path), images_per_class=20).open(0)))


def test_it_takes_the_place_of_office_home_only_where_that_is_not_there(tmp_path: Path) -> None:
    scale = Scale(name="small", given={}, data=str(tmp_path))
    assert [panel.stream.key for panel in RECIPES["selective"].panels(scale)] == ["office-home"]
    file = tmp_path / "small/office_caltech10_96.parquet"
    file.parent.mkdir()
    file.touch()
    (stand_in,) = RECIPES["selective"].panels(scale)
    assert (stand_in.stream.key, stand_in.stream.stands_for) == ("office-caltech", "office-home")
    assert stand_in.stream.base["stream"]["path"] == str(file)
    (tmp_path / "office-home").mkdir()
    assert [panel.stream.key for panel in RECIPES["selective"].panels(scale)] == ["office-home"]
