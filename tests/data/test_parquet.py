import os
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from forks import Forked

from lasem.data import ParquetReader, Part
from lasem.errors import DataError

from .fixture import all_pixels, assert_same_task, named_pixels, png, random_images, write_parquet, write_table

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


GOOD, TWO = [png(image) for image in IMAGES[:8]], [0, 1] * 4
LARGER = png(random_images(1, (3, 7, 6))[0])


@pytest.mark.parametrize(
    ("table", "more", "message"),
    [
        (rows(TWO, GOOD), {"label_column": "lable"}, r"label\. .* --label-column.*Did you mean 'label'"),
        (rows(TWO, GOOD), {"image_column": "img"}, "column 'img' in"),
        (rows(TWO, TWO), {}, "Expected encoded images in column 'image' .*it is of type int64.* --image-column"),
        (rows([0.5] * 8, GOOD), {}, "integers or strings in column 'label' of .*of type double"),
        (rows([None, -1] * 4, GOOD), {}, "labels in column 'label' of .*; none of its 8 rows has one"),
        (rows([[0], [1]] * 4, GOOD), {}, "of type list<"),
        (rows([datetime(2020, 1, 1)] * 8, GOOD), {}, r"of type timestamp"),
        (rows([{"a": 1}] * 8, GOOD), {}, "of type struct"),
        (rows([], pa.array([], pa.binary())), {}, "none of its 0 rows has one"),
        (pa.table({}), {}, "its columns are none"),
        (pa.table([GOOD, TWO, TWO], ["image", "label", "label"]), {}, "a column 'label' in .*, once"),
        (rows(TWO, [[cell] for cell in GOOD]), {}, "encoded images in column 'image' .*of type list"),
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
    write_parquet(tmp_path / "x.parquet", IMAGES[:4], [0, 1, 9, 0], NAMES)
    with pytest.raises(DataError, match=r"labels from 0 to 3, .*row 2 of column 'label' holds 9"):
        read(tmp_path / "x.parquet").open(0)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    write_parquet(file, IMAGES, LABELS, NAMES)
    whole = file.read_bytes()
    for damaged in (b"", b"no parquet", whole[:-100], whole[:200] + bytes(len(whole) - 1500) + whole[-1300:]):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=r"x\.parquet"):
            read(file).open(0)
    file.unlink()
    os.mkfifo(tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"train\.parquet cannot be read: it is no file"):
        read(tmp_path).open(0)


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
    with pytest.raises(DataError, match=r"files ending in \.parquet or \.arrow in .*there are none"):
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


HUB = [
    ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"),
    ("data/train-00000-of-00002-a09b74b3ef9c3b56", "data/train-00001-of-00002-b19b74b3ef9c3b56", "data/test"),
    ("plain_text/train-00000-of-00002", "plain_text/train-00001-of-00002", "plain_text/test-00000-of-00001"),
    ("default/train/0000", "default/train/0001", "default/test/0000"),
    ("cifar10-train-00000-of-00002", "cifar10-train-00001-of-00002", "cifar10-test"),
    ("train/data-00000-of-00002", "train/data-00001-of-00002", "test/data-00000-of-00001"),
    ("train_1", "train_2", "test"),
    ("train-1-of-2", "train-2-of-2", "test-1-of-1"),
    ("train_0_of_2", "train_1_of_2", "test_0_of_1"),
    ("training_data_1", "training_data_2", "testing_data_1"),
    ("my_train_v2-0", "my_train_v2-1", "my_test_v2-0"),
    ("TrainSet0", "TrainSet1", "TestSet"),
    ("train_data/0", "train_data/1", "test_data/0"),
]  # fmt: skip


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize("files", HUB)
def test_layouts_of_the_hub(tmp_path: Path, files: tuple[str, ...], suffix: str) -> None:
    for seed, file in enumerate(files):
        write_parquet(tmp_path / f"{file}{suffix}", random_images(20, (3, 6, 6), seed), LABELS[:20], NAMES)
    write_parquet(tmp_path / "metadata.parquet", IMAGES[:2], [0, 1])
    write_parquet(tmp_path / ".cache/train.parquet", IMAGES[:2], [0, 1])
    data = read(tmp_path).labelled()
    assert data.parts.bincount().tolist() == [40, 0, 20]
    for name in (".parquet.gz", ".txt"):
        (tmp_path / f"readme{name}").write_text("x")
    task = read(tmp_path, classes_per_task=4).open(0)[0]
    expected = torch.cat([random_images(20, (3, 6, 6), seed) for seed in (0, 1)])
    assert len(all_pixels(task.train)) + len(all_pixels(task.valid)) == len(expected)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train-00000-of-00003", "train-00002-of-00003"], r"there is no 'train-00001-of-00003\.parquet'"),
        (["train-00001-of-00002"], r"there is no 'train-00000-of-00002\.parquet'"),
        (["train-00000-of-00001", "test-00000-of-00002"], r"there is no 'test-00001-of-00002\.parquet'"),
        (["data/train-00000-of-00002-a09b74b3ef9c3b56"], r"there is no 'train-00001-of-00002\.parquet'"),
        (["default/train/0000", "default/train/0002"], r"there is no '0001\.parquet'"),
        (["train/00000-of-00002"], r"there is no '00001-of-00002\.parquet'"),
        (["x-00000-of-00002"], r"there is no 'x-00001-of-00002\.parquet'"),
        (["train-00000-of-00001", "train-00001-of-00001"], r"there is also 'train-00001-of-00001\.parquet'"),
        (["train-00000-of-00001", "train-00000-of-00002"], "are of two. Keep one"),
        (["train", "trainer"], r"got 'trainer\.parquet'"),
        (["train_1", "train_2", "train_4"], r"4 of 'train_.*there is no 'train_3\.parquet'"),
        (["train_0_of_3", "train_2_of_3"], r"there is no 'train_1_of_3\.parquet'"),
        (["train-1-of-3", "train-3-of-3"], r"there is no 'train-2-of-3\.parquet'"),
        (["train", "test", "test_old"], "the names begin with 'test', 'test_old', 'train'"),
        (["train", "train-extra"], "the names begin with 'train', 'train-extra'"),
        (["train", "training"], "the names begin with 'train', 'training'"),
        (["train", "old-test"], "one set of tables in .*the names begin with 'old-test', 'train'"),
        (["mnist-train", "fashion-train"], "the names begin with 'fashion-train', 'mnist-train'"),
        (["cifar10-train", "cifar100-test"], "the names begin with 'cifar10-train', 'cifar100-test'"),
        (["train/0", "training/0"], "there are several: .*train, .*training"),
        (["test_images"], r"training split .*only test_images\.parquet"),
        (["mnist/train", "fashion/train"], r"one set of tables in .*there are several: .*fashion, .*mnist\. Name one"),
        (["train", "old/train"], r"one set of tables in .*there are several: .*old\. Name one"),
        (["train/0000", "extra/0000"], "Expected only folders of splits .*got 'extra'"),
        (["train", "train.arrow"], "there are .parquet and .arrow files"),
        (["test/0000"], r"training split .*there are only 0000\.parquet"),
    ],
)  # fmt: skip
def test_pieces_that_are_missing_and_files_of_something_else_are_refused(
    tmp_path: Path, files: list[str], message: str
) -> None:
    for file in files:
        write_parquet(tmp_path / (file if file.endswith(".arrow") else f"{file}.parquet"), IMAGES, LABELS, NAMES)
    with pytest.raises(DataError, match=message):
        read(tmp_path).open(0)


@pytest.mark.parametrize("names", [NAMES, None])
@pytest.mark.parametrize("none", [-1, -100, None])
def test_rows_without_a_label_are_left_out_and_counted(
    tmp_path: Path, names: list[str] | None, none: int | None
) -> None:
    write_parquet(tmp_path / "train.parquet", IMAGES, [*LABELS[:36], *[none] * 4], names)
    write_parquet(tmp_path / "test.parquet", IMAGES[:8], [none] * 8, names)
    data = read(tmp_path).labelled()
    assert data.classes == tuple(names or "0123")
    assert data.parts.bincount().tolist() == [36]
    assert data.left_out == ((Part.TEST, "without a label"),) * 8 + ((Part.TRAIN, "without a label"),) * 4
    assert torch.equal(data.take(torch.arange(36)).take(torch.arange(36)), IMAGES[:36])


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_labels_of_text_in_every_form(tmp_path: Path, kind: pa.DataType, suffix: str) -> None:
    none = ["-1", "nan", "", " "]
    labels = pa.array([*(NAMES[label] for label in LABELS[4:]), *none]).cast(kind)
    write_table(rows(labels, [png(image) for image in IMAGES]), tmp_path / f"x{suffix}")
    data = read(tmp_path / f"x{suffix}").labelled()
    assert (list(data.class_names), data.labels.tolist()) == (NAMES, LABELS[4:])
    assert data.left_out == ((Part.TRAIN, "without a label"),) * 4


def test_class_names_that_are_no_text(tmp_path: Path) -> None:
    """As pyarrow does not check them: Latin-1, and half of a pair in JSON."""
    about = b'{"info": {"features": {"label": {"names": ["a\\ud800", "b"]}}}}'
    table = rows(TWO, GOOD).replace_schema_metadata({b"huggingface": about})
    write_table(table, tmp_path / "x.parquet")
    assert list(read(tmp_path / "x.parquet").labelled().class_names) == ["a\ud800", "b"]


def stored_once(numbers: list[int], values: list[Any]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(numbers, pa.int32()), pa.array(values))


BIG = png(IMAGES[0]) + bytes(40 * 10**6)
SAME = stored_once([0] * 9000, [png(torch.zeros(3, 700, 700).byte())])
LONG = stored_once([0, 1] * 4500, ["a" * 10**7, "b" * 10**7])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (rows([0, 1] * 4500, SAME.cast(pa.binary())), "to be what its files can hold; .* become 12.3 GiB"),
        (rows([0, 1] * 50, stored_once([0] * 100, [BIG])), "expand to far more than it holds"),
        (rows(LONG, [png(IMAGES[0])] * 9000), "1 to 1,000 characters for each class; got one of 10,000,000, 'aaa"),
    ],
)  # fmt: skip
def test_what_is_stored_once_may_not_fill_the_memory(tmp_path: Path, table: pa.Table, message: str) -> None:
    """In a process of its own, whose memory is measured."""
    file = tmp_path / "x.parquet"
    pq.write_table(table, file, compression="zstd", store_schema=False, dictionary_pagesize_limit=2**30)
    assert file.stat().st_size < 10_000
    (tmp_path / "measured.py").write_text(MEASURED)
    done = Forked("measured.py", str(file), folder=tmp_path).ended()
    assert done.returncode == 0, done.stderr
    assert re.search(message, done.stdout)


MEASURED = """
import resource, sys
from lasem.data import ParquetReader
from lasem.errors import DataError
try:
    ParquetReader(path=sys.argv[1], classes_per_task=2).open(0)[0]
except DataError as error:
    print(error)
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1.2 * 2**20  # KiB
"""


def test_a_compressed_arrow_file_is_refused(tmp_path: Path) -> None:
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as file:
        table = rows(TWO, GOOD)
        with pa.ipc.new_stream(file, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(table)
    with pytest.raises(DataError, match=r"arrow file, but .*x\.arrow cannot be read: it is compressed"):
        read(tmp_path / "x.arrow").open(0)
    for wrong in (b"", b"ARROW1\0\0", b"no arrow at all"):
        (tmp_path / "x.arrow").write_bytes(wrong)
        with pytest.raises(DataError, match=r"x\.arrow cannot be read"):
            read(tmp_path / "x.arrow").open(0)


def test_a_damaged_footer_ends_no_process(tmp_path: Path) -> None:
    """Every byte of a footer is changed in turn."""
    pq.write_table(rows([0, 1], [png(IMAGES[0])] * 2), tmp_path / "x.parquet", store_schema=False)
    (tmp_path / "changed.py").write_text(CHANGED)
    done = Forked("changed.py", "x.parquet", folder=tmp_path).ended()
    assert done.returncode == 0, done.stderr


CHANGED = """
import sys
from lasem.data import ParquetReader
from lasem.errors import LasemError
whole = open(sys.argv[1], "rb").read()
for place in range(len(whole) - 8 - int.from_bytes(whole[-8:-4], "little"), len(whole)):
    open(sys.argv[1], "wb").write(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1:])
    try: ParquetReader(path=sys.argv[1], num_tasks=1, classes_per_task=2).labelled()
    except LasemError: pass
"""
