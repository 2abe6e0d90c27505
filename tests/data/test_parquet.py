from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lasem.data import ParquetReader
from lasem.errors import DataError

from .fixture import all_pixels, assert_same_task, named_pixels, png, random_images, write_parquet

NAMES = ["ant", "bee", "cat", "dog"]
IMAGES, LABELS = random_images(40, (3, 6, 6)), [number % 4 for number in range(40)]
REAL = Path(__file__).parents[2].parent / "shared/data/tinyimagenet32"


def read(place: Path, **more: Any) -> ParquetReader:
    return ParquetReader(path=str(place), **({"classes_per_task": 2} | more))


def test_one_file(tmp_path: Path) -> None:
    write_parquet(tmp_path / "insects.parquet", IMAGES, LABELS, NAMES)
    stream = read(tmp_path / "insects.parquet").open(1)
    assert [task.name for task in stream] == ["insects-0", "insects-1"]
    assert named_pixels(stream) == {
        pixels.numpy().tobytes(): NAMES[label] for pixels, label in zip(IMAGES, LABELS, strict=True)
    }


@pytest.mark.parametrize(
    "files",
    [
        ("train.parquet", "validation.parquet", "test.parquet"),
        ("data/train-00000-of-00001.parquet", "data/valid-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
        ("train/0000.parquet", "val/0000.parquet", "test/0000.parquet"),
    ],
)
def test_one_file_for_each_split(tmp_path: Path, files: tuple[str, ...]) -> None:
    for seed, (file, num) in enumerate(zip(files, (40, 8, 12), strict=True)):
        write_parquet(tmp_path / file, random_images(num, (3, 6, 6), seed), LABELS[:num], NAMES)
    task = read(tmp_path).open(0)[0]
    assert [len(split) for split in (task.train, task.valid, task.test)] == [20, 4, 6]
    test = random_images(12, (3, 6, 6), 2)
    expected = torch.tensor([NAMES[label] in task.classes for label in LABELS[:12]])
    assert torch.equal(all_pixels(task.test), test[expected])


def test_shards_are_the_file_that_they_were_cut_from(tmp_path: Path) -> None:
    write_parquet(tmp_path / "whole" / "x" / "train.parquet", IMAGES, LABELS, NAMES)
    for shard in (1, 0):
        rows = slice(20 * shard, 20 * shard + 20)
        write_parquet(tmp_path / "cut" / "x" / f"train-0000{shard}-of-00002.parquet", IMAGES[rows], LABELS[rows], NAMES)
        write_parquet(tmp_path / "bare" / "x" / f"000{shard}.parquet", IMAGES[rows], LABELS[rows], NAMES)
    whole = read(tmp_path / "whole" / "x").open(0)
    for place in ("cut", "bare"):
        for first, second in zip(whole, read(tmp_path / place / "x").open(0), strict=True):
            assert_same_task(first, second)


def test_cells_of_plain_bytes_and_labels_without_names(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", IMAGES, [7 - label for label in LABELS], plain=True)
    write_parquet(tmp_path / "b.parquet", IMAGES, [NAMES[label] for label in LABELS])
    write_parquet(tmp_path / "c.parquet", IMAGES, LABELS, NAMES)
    assert sorted(name for task in read(tmp_path / "a.parquet").open(0) for name in task.classes) == list("4567")
    strings, named = read(tmp_path / "b.parquet").open(0), read(tmp_path / "c.parquet").open(0)
    for first, second in zip(strings, named, strict=True):
        assert first.classes == second.classes
        assert torch.equal(all_pixels(first.train), all_pixels(second.train))


def test_only_images_that_are_used_are_decoded(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    write_parquet(file, IMAGES, LABELS, NAMES)
    stream = read(file, num_tasks=1, train_per_class=2, valid_per_class=1, test_per_class=1).open(0)
    full = read(file, num_tasks=1).open(0)
    assert len(all_pixels(stream[0].train)) == 4
    assert stream[0].classes == full[0].classes


def rows(labels: Any, cells: Any, **columns: Any) -> pa.Table:
    return pa.table({"image": cells, "label": labels} | columns)


GOOD = [png(image) for image in IMAGES[:8]]
TWO = [0, 1] * 4
LARGER = png(random_images(1, (3, 7, 6))[0])


@pytest.mark.parametrize(
    ("table", "more", "message"),
    [
        (rows(TWO, GOOD), {"label_column": "lable"}, r"label\. .* --label-column.*Did you mean 'label'"),
        (rows(TWO, GOOD), {"image_column": "img"}, "column 'img' in"),
        (rows(TWO, TWO), {}, "Expected encoded images in column 'image' .*it is of type int64.* --image-column"),
        (rows([0.5] * 8, GOOD), {}, r"integers or strings.*column 'label' of .*row 0 holds 0\.5"),
        (rows([0, 1, None, 1] * 2, GOOD), {}, "row 2 holds None"),
        (rows(TWO, [*GOOD[:5], b"no image", *GOOD[6:]]), {}, r"x\.parquet, row 5, column 'image' cannot: "),
        (rows(TWO, [*GOOD[:5], None, *GOOD[6:]]), {}, "row 5, column 'image' holds none"),
        (rows(TWO, [*GOOD[:5], LARGER, *GOOD[6:]]), {}, r"row 0.*\(6, 6\).*row 5.*\(7, 6\).*Set image_size"),
        (rows(TWO, GOOD), {"train_per_class": 9}, "Class '[01]' has too few images.*holds 4"),
    ],
)  # fmt: skip
def test_tables_that_do_not_fit(tmp_path: Path, table: pa.Table, more: dict[str, Any], message: str) -> None:
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(DataError, match=message):
        read(tmp_path / "x.parquet", **more).open(0)


def test_a_label_without_a_name_is_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "x.parquet", IMAGES[:4], [0, 1, -1, 0], NAMES)
    with pytest.raises(DataError, match=r"labels from 0 to 3, .*row 2 of column 'label' holds -1"):
        read(tmp_path / "x.parquet").open(0)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    write_parquet(file, IMAGES, LABELS, NAMES)
    whole = file.read_bytes()
    for damaged in (b"", b"no parquet", whole[:-100], whole[:200] + bytes(len(whole) - 1500) + whole[-1300:]):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=r"x\.parquet"):
            read(file).open(0)


def test_a_file_of_another_kind_is_told_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,label\n")
    with pytest.raises(DataError, match=r"CLASS/\*\.png\), or a parquet file .*t\.csv is neither\.$"):
        read(tmp_path / "t.csv").open(0)
    (tmp_path / "half").write_bytes(b"PAR1 and no end")
    with pytest.raises(DataError, match=r"half cannot be read: .*Download it again"):
        read(tmp_path / "half").open(0)


def test_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Expected a file or folder at .*nothing, but there is none"):
        read(tmp_path / "nothing").open(0)
    with pytest.raises(DataError, match=r"files ending in \.parquet in .*there are none"):
        read(tmp_path).open(0)
    write_parquet(tmp_path / "test.parquet", IMAGES, LABELS, NAMES)
    with pytest.raises(DataError, match=r"training split .*only test\.parquet"):
        read(tmp_path).open(0)
    write_parquet(tmp_path / "train.parquet", IMAGES, LABELS, NAMES[::-1])
    with pytest.raises(DataError, match=r"same class names in all files.*train\.parquet differ from .*test\.parquet"):
        read(tmp_path).open(0)
    write_parquet(tmp_path / "train.parquet", IMAGES, [NAMES[label] for label in LABELS], NAMES)
    with pytest.raises(DataError, match=r"labels of one type in all files.*train\.parquet"):
        read(tmp_path).open(0)
    write_parquet(tmp_path / "vaild.parquet", IMAGES, LABELS, NAMES)
    with pytest.raises(DataError, match=r"got 'vaild\.parquet'"):
        read(tmp_path).open(0)


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared data are not here")
def test_real_images_with_the_papers_budget() -> None:
    stream = read(REAL, classes_per_task=10, num_tasks=2, train_per_class=17, test_per_class=20).open(0)
    first, second = stream
    assert first.name == "tinyimagenet32-0"
    assert [len(split) for split in (first.train, first.valid, first.test)] == [170, 30, 200]
    assert first.image_shape == (3, 32, 32)
    assert not set(first.classes) & set(second.classes)
    assert all(".n0" in name or ".n1" in name for name in first.classes)
    images, _ = next(first.train.batches(170))
    torch.testing.assert_close(images.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(images.std(dim=(0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)


def test_a_file_that_claims_more_than_it_can_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column of one value takes a few bytes for any number of rows."""
    column = pa.array([b"x"] * 300_000).dictionary_encode()
    table = pa.table({"image": column.cast(pa.binary()), "label": pa.array([0] * 300_000)})
    pq.write_table(table, tmp_path / "bomb.parquet")
    assert (tmp_path / "bomb.parquet").stat().st_size < 10_000
    with pytest.raises(DataError, match=r"bomb\.parquet cannot be read: it claims 300,000 rows"):
        read(tmp_path / "bomb.parquet").open(0)
    pq.write_table(
        pa.table({"image": [bytes(10**8), b""], "label": [0, 1]}), tmp_path / "zeros.parquet", compression="zstd"
    )
    with pytest.raises(DataError, match=r"zeros\.parquet cannot be read: it claims .* bytes in a group"):
        read(tmp_path / "zeros.parquet").open(0)
    write_parquet(tmp_path / "insects.parquet", IMAGES, LABELS, NAMES)
    monkeypatch.setattr("lasem.data.parquet.os.sysconf", lambda _: 10)
    with pytest.raises(DataError, match=r"Expected the images of .* to fit into memory"):
        read(tmp_path / "insects.parquet").open(0)
