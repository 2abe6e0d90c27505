from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lasem.data import FileImages, FolderReader, Part
from lasem.data.decode import DamagedError
from lasem.data.folders import files_below, unpack
from lasem.data.labelled import counted
from lasem.data.readers import existing_path
from lasem.errors import DataError

from .fixture import all_pixels, assert_same_task, named_pixels, png, random_images, write_class_folders

CLASSES = ["ant", "bee", "cat", "dog", "emu"]


def read(place: Path, **more: Any) -> FolderReader:
    return FolderReader(path=str(place), **({"classes_per_task": 2} | more))


def test_folders_of_classes(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "my zoo", CLASSES, 10)
    stream = read(tmp_path / "my zoo").open(1)
    assert [task.name for task in stream] == ["my-zoo-0", "my-zoo-1"]
    assert {task.image_shape for task in stream} == {(3, 6, 6)}
    assert named_pixels(stream) == {
        pixels.numpy().tobytes(): name
        for task in stream
        for name in task.classes
        for pixels in random_images(10, (3, 6, 6), CLASSES.index(name))
    }


@pytest.mark.parametrize(
    ("valid_name", "has_valid", "has_test"), [("valid", True, True), ("val", True, False), ("", False, True)]
)
def test_folders_of_splits(tmp_path: Path, valid_name: str, has_valid: bool, has_test: bool) -> None:
    write_class_folders(tmp_path / "train", CLASSES, 10)
    if has_valid:
        write_class_folders(tmp_path / valid_name, CLASSES, 4, seed=1)
    if has_test:
        write_class_folders(tmp_path / "test", CLASSES, 3, seed=2)
    task = read(tmp_path).open(0)[0]
    assert len(task.valid) == 2 * (4 if has_valid else round(0.15 * (10 if has_test else 8)))
    assert len(task.test) == 2 * (3 if has_test else 2)
    if has_test:
        expected = random_images(3, (3, 6, 6), 2000 + CLASSES.index(task.classes[0]))
        assert torch.equal(all_pixels(task.test)[task.test.labels == 0], expected)


@pytest.mark.parametrize("more", [{}, {"image_size": 5}, {"channels": 1}, {"standardise": "split"}])
def test_decoding_on_demand_gives_the_same_bits(tmp_path: Path, more: dict[str, Any]) -> None:
    write_class_folders(tmp_path, CLASSES, 8)
    in_memory, on_demand = read(tmp_path, **more).open(0), read(tmp_path, memory_limit_mb=0, **more).open(0)
    for first, second in zip(in_memory, on_demand, strict=True):
        assert_same_task(first, second)
        for (images, _), (others, _) in zip(first.train.batches(3), second.train.batches(3), strict=True):
            assert torch.equal(images, others)


def test_the_order_does_not_depend_on_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_class_folders(tmp_path, CLASSES, 6)
    forwards = read(tmp_path).open(0)[0]
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter(sorted(listed(folder), reverse=True)))
    assert_same_task(read(tmp_path).open(0)[0], forwards)


def test_hidden_files_and_other_files_are_passed_over_and_links_followed(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "data", CLASSES[:2], 6)
    before = read(tmp_path / "data").open(0)[0]
    (tmp_path / "data" / "ant" / "notes.txt").write_text("no image")
    (tmp_path / "data" / "ant" / ".hidden.png").write_text("no image")
    (tmp_path / "data" / ".git").mkdir()
    (tmp_path / "data" / "README.md").write_text("no folder")
    (tmp_path / "data" / "bee").rename(tmp_path / "elsewhere")
    (tmp_path / "data" / "bee").symlink_to(tmp_path / "elsewhere")
    assert_same_task(read(tmp_path / "data").open(0)[0], before)


def test_images_may_lie_deeper_than_their_class(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "flat", CLASSES[:2], 6)
    write_class_folders(tmp_path / "deep", CLASSES[:2], 6)
    for number in range(4, 6):  # behind the others also as paths
        for name in CLASSES[:2]:
            below = tmp_path / "deep" / name / "more" / "still more"
            below.mkdir(parents=True, exist_ok=True)
            (tmp_path / "deep" / name / f"00{number}.png").rename(below / f"00{number}.png")
    (tmp_path / "deep" / "ant" / ".thumbnails").mkdir()
    (tmp_path / "deep" / "ant" / ".thumbnails" / "000.png").write_text("no image")
    for first, second in zip(read(tmp_path / "flat").open(0), read(tmp_path / "deep").open(0), strict=True):
        assert first.classes == second.classes
        assert torch.equal(all_pixels(first.train), all_pixels(second.train))
    (tmp_path / "deep" / "ant" / "more").rename(tmp_path / "deep" / "ant" / "test")
    with pytest.raises(DataError, match=r"split there, 'test'\. Put splits above the classes: test/ant/"):
        read(tmp_path / "deep").open(0)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for classes in (["bus", "train"], ["bullet_train", "freight_train", "test_tube"], ["bus", "test", "validity"]):
        write_class_folders(tmp_path / "-".join(classes), classes, 6)
        assert list(read(tmp_path / "-".join(classes)).labelled().class_names) == classes


def test_a_file_that_is_no_image_is_named_when_the_stream_is_opened(tmp_path: Path) -> None:
    write_class_folders(tmp_path, CLASSES[:2], 6)
    (tmp_path / "ant" / "000.png").write_text("no image")
    with pytest.raises(DataError, match=r"ant/000\.png cannot: "):
        read(tmp_path, memory_limit_mb=0).open(0)


def test_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "zoo", CLASSES, 6)
    with pytest.raises(DataError, match=r"Expected a file or folder at .*zo, but there is none.* Did you mean 'zoo'"):
        read(tmp_path / "zo").open(0)
    with pytest.raises(DataError, match=r"folder of images, .*000\.png, but it is another file"):
        read(tmp_path / "zoo" / "ant" / "000.png").open(0)
    with pytest.raises(DataError, match=r"folder for each class in .*ant, but it holds no folder"):
        read(tmp_path / "zoo" / "ant").open(0)
    (tmp_path / "zoo" / "bee" / "007.png").write_bytes(png(random_images(1, (3, 6, 7))[0]))
    with pytest.raises(DataError, match=r"as large as .*, 6x6 .*bee/007\.png is 6x7\. Set image_size"):
        read(tmp_path / "zoo", classes_per_task=5).open(0)
    (tmp_path / "zoo" / "fox").mkdir()
    with pytest.raises(DataError, match=r"Class 'fox' has too few images.*there are 0"):
        read(tmp_path / "zoo").open(0)


def test_splits_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "test", CLASSES, 6)
    with pytest.raises(DataError, match="Expected a folder 'train' next to 'test'"):
        read(tmp_path).open(0)
    write_class_folders(tmp_path / "train", CLASSES[:4], 6)
    with pytest.raises(DataError, match=r"classes that have training images.*got .*test/emu"):
        read(tmp_path).open(0)
    write_class_folders(tmp_path / "vaild", CLASSES, 6)
    with pytest.raises(DataError, match=r"'vaild' as well.* Did you mean 'valid'"):
        read(tmp_path).open(0)
    (tmp_path / "vaild").rename(tmp_path / "Training")
    with pytest.raises(DataError, match=r"one folder for each split.*got Training and train"):
        read(tmp_path).open(0)


def test_a_stream_larger_than_memory_stays_in_its_files(tmp_path: Path) -> None:
    write_class_folders(tmp_path, CLASSES, 6)
    taken: list[int] = []
    take = FileImages.take
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileImages, "take", lambda self, indices: taken.append(len(indices)) or take(self, indices))
        read(tmp_path, memory_limit_mb=0).open(0)
    assert not taken


LAYOUTS = {
    "intel": ("seg_train/seg_train/C", "seg_test/seg_test/C", "seg_pred/seg_pred"),
    "sets": ("training_set/C", "test_set/C"),
    "wrapped sets": ("training_set/training_set/C", "test_set/test_set/C"),
    "capitals": ("Training/C", "Testing/C"),
    "words": ("images_train/C", "images_test/C"),
    "years": ("train2017/C", "val2017/C"),
    "camels": ("TrainImages/C", "ValidationImages/C"),
    "alphabet": ("asl_alphabet_train/asl_alphabet_train/C", "asl_alphabet_test/asl_alphabet_test/C"),
    "apple": ("train/C", "val/C", "__MACOSX/train/C"),
    "short": ("trn/C", "tst/C"),
    "joined": ("trainval/C", "tests/C"),
    "exact and not": ("train/C", "test_images/C"),
}


@pytest.mark.parametrize("places", LAYOUTS.values(), ids=LAYOUTS)
def test_folders_that_are_called_like_splits_are_splits(tmp_path: Path, places: tuple[str, ...]) -> None:
    for number, place in enumerate(places):
        if place.endswith("/C"):
            write_class_folders(tmp_path / place.removesuffix("/C"), CLASSES[:2], 3 - number)
        else:
            (tmp_path / place).mkdir(parents=True)
            (tmp_path / place / "0.jpg").write_bytes(b"")
    data = read(tmp_path).labelled()
    assert data.class_names == CLASSES[:2]
    assert [int((data.parts == part).sum()) for part in Part if (data.parts == part).any()] == [6, 4]
    assert counted(data.left_out) == (("1 in no folder of a split",) if len(places) == 3 and "seg" in places[2] else ())


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (["train", "test"], r"folder for each class in .*train, but it holds no folder, only images .*0\.png"),
        (["Training", "Testing", "bus"], r"folder for each class in .*Training, but it holds no folder"),
        (["images_train", "images_val"], r"folder for each class in .*images_train, but"),
        (["trainA", "trainB", "testA", "testB"], "one folder for each split in .*; got testA and testB"),
        (["train"], r"folder for each class in .*train, but it holds no folder, only images"),
        (
            ["train/a", "train/b", "val"],
            r"folder for each class in .*val, but it holds no folder, only images .*0\.png",
        ),
        (["fold1/a", "fold1/b", "fold2/a", "fold2/b"], r"fold1 and fold2 seem to be groups .* folders \(a, b\)"),
        (["ant/ant_train", "ant/ant_test", "bee/bee_train"], "split there, 'ant_test'"),
        (["tests", "trn"], r"folder for each class in .*trn, but it holds no folder"),
        (["train/a", "train/b", "val/c"], r"only classes that have training images.*val/c"),
        (["train/a", "train/b", "bus"], "Expected only folders of splits .* as train is one; got 'bus' as well"),
        (["images/a", "images/b"], r"classes seem to be below, in .*/images \(a, b\)\. Give that folder"),
        (["x/data/train/a", "x/data/val/a"], r"classes seem to be below, in .*/x/data \(train, val\)"),
        (["images/train", "images/val", "labels/train"], r"split there, 'train'\. Put splits above the classes"),
        ([".hidden/a", "__MACOSX/a"], "but it holds no folder"),
    ],
)
def test_what_looks_like_splits_and_is_none_is_refused(tmp_path: Path, places: list[str], message: str) -> None:
    for place in places:
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "0.png").write_bytes(png(random_images(1)[0]))
    with pytest.raises(DataError, match=message):
        read(tmp_path).labelled()


GROUPS = {
    "domains": (["amazon/mug", "amazon/bike", "dslr/mug", "dslr/bike"], r"amazon and dslr .*\(bike, mug\)\..*/amazon,"),
    "one class missing": ([f"{a}/{b}" for a in "ab" for b in "pqrst" if a + b != "bt"], r"a and b .*\(p, q, r, ...\)"),
    "in a split": ([f"{s}/{a}/{b}" for s in ("train", "test") for a in "ab" for b in "pq"], "train; a and b seem"),
    "images of each class": (["ant/images", "bee/images"], ""),
    "images of wnids": (["n01/images", "n02/images"], ""),
    "kinds of images": ([f"{a}/{b}" for a in ("ant", "bee", "cat") for b in ("left", "right")], ""),
    "photographers": (["ant/anna", "ant/ben", "bee/anna", "bee/cleo"], ""),
    "images as well": (["ant/more", "ant/old", "bee", "bee/more", "bee/old"], ""),
    "a class without folders": (["ant/more", "ant/old", "bee"], ""),
    "groups to test": (["train/a", "train/b", "test/a/p", "test/a/q", "test/b/p", "test/b/q"], ""),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(("places", "message"), GROUPS.values(), ids=GROUPS)
def test_groups_above_classes_are_refused(tmp_path: Path, places: list[str], message: str, zipped: bool) -> None:
    for place in places:
        (tmp_path / "data" / place).mkdir(parents=True)
        for number in range(2):
            (tmp_path / "data" / place / f"{number}.png").write_bytes(png(random_images(1)[0]))
    given = Path(shutil.make_archive(str(tmp_path / "all"), "zip", tmp_path / "data")) if zipped else tmp_path / "data"
    if not message:
        assert len(read(given).labelled().labels) == 2 * len(places)
        return
    with pytest.raises(DataError, match=message) as raised:
        read(given).labelled()
    assert str(given) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert ("once unpacked" in str(raised.value)) == zipped


def test_what_the_decoder_opens_is_used_and_what_is_not_is_counted(tmp_path: Path) -> None:
    kinds = {"jfif": "JPEG", "JPE": "JPEG", "avif": "AVIF", "webp": "WEBP", "jp2": "JPEG2000", "gif": "GIF", "": "PNG"}
    for name, kind in kinds.items():
        (tmp_path / "data/a").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / f"data/a/{kind}.{name}".rstrip("."), kind)
    write_class_folders(tmp_path / "elsewhere", ["b"], 5)
    (tmp_path / "data/b").mkdir()
    (tmp_path / "data/b/more").symlink_to(tmp_path / "elsewhere/b")
    (tmp_path / "data/b/again").symlink_to(tmp_path / "data/b")
    (tmp_path / "data/b/gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "data/b/round.png").symlink_to(tmp_path / "data/b/round.png")
    for name in ("data/stray.png", "data/stray", "data/b/.hidden.png"):
        (tmp_path / name).write_bytes(png(random_images(1)[0]))
    (tmp_path / "data/c").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "data/b/pipe.png")
    for name in ("x.txt", "y.txt", "icon.ico", "Thumbs.db", "._0.png"):
        (tmp_path / "data/b" / name).write_bytes(b"\0\0\1\0")
    data = read(tmp_path / "data").labelled()
    assert data.labels.bincount().tolist() == [7, 5]
    left_out = "2 in no folder of a class, 1 link to a folder that is there already, 1 of type .ico, 1 pipe or device"
    assert set(counted(data.left_out)) == {"3 dangling link", "2 of type .txt", "1 hidden", *left_out.split(", ")}


def test_folders_that_link_to_each_other_come_to_an_end(tmp_path: Path) -> None:
    for depth in range(40):  # 2**40 paths
        for name in "ab":
            (tmp_path / f"links/{depth}").mkdir(parents=True, exist_ok=True)
            (tmp_path / f"links/{depth}/{name}").symlink_to(tmp_path / f"links/{depth + 1}")
    write_class_folders(tmp_path / "links", ["40"], 2)
    assert sum(not why for _, why in files_below(tmp_path / "links/0")) == 2


def test_each_folder_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_class_folders(tmp_path / "data", CLASSES, 1)
    (tmp_path / "data/ant/.hidden.png").write_bytes(png(random_images(1)[0]))
    read_places = []
    for name in ("scandir", "listdir"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda place, real=real: read_places.append(str(place)) or real(place))
    assert sorted(why for _, why in files_below(tmp_path / "data")) == [""] * len(CLASSES) + ["hidden"]
    assert sorted(read_places) == [str(tmp_path / "data" / name) for name in ("", *CLASSES)]


@pytest.mark.parametrize("place", ["", "train"])
@pytest.mark.parametrize("name", ["metadata.csv", "labels.csv", "mine.csv", "metadata.jsonl", "mine.tsv"])
def test_a_list_takes_the_place_of_classes_folders(tmp_path: Path, name: str, place: str) -> None:
    (tmp_path / place).mkdir(exist_ok=True)
    rows = [(f"{k}.png", "ab"[k % 2]) for k in range(4)] + [("x" * 300, "a"), ("4.png", ""), ("6.png", "-1")]
    rows += [("7.png", "NaN"), ("./0.png", "a")]
    for k in range(8):
        (tmp_path / place / f"{k}.png").write_bytes(png(random_images(1, seed=k)[0]))
    mark = "\t" if name.endswith("tsv") else ";" if name.startswith("labels") else ","
    lines = [mark.join(row) for row in [("File_Name", " Label"), *rows]]
    if name.endswith("jsonl"):
        lines = [json.dumps({"file_name": file} | ({"label": label} if label else {})) for file, label in rows[::-1]]
    (tmp_path / place / name).write_text("\ufeff" + "\n".join(lines))
    for given in (tmp_path, tmp_path / place / name):
        data = read(given).labelled()
        assert (list(data.class_names), data.labels.tolist()) == (["a", "b"], [0, 0, 1, 1])
        there = () if given != tmp_path else (f"1 not in {name}",)
        others = "1 twice in the list", "3 without a label"
        assert counted(data.left_out) == ("1 in the list but not there", *there, *others)


def test_two_spellings_of_one_number_are_refused(tmp_path: Path) -> None:
    def labels(*names: str) -> list[str]:
        for number in range(len(names)):
            (tmp_path / f"{number}.png").write_bytes(png(random_images(1)[0]))
        rows = "".join(f"{number}.png,{name}\n" for number, name in enumerate(names))
        (tmp_path / "labels.csv").write_text(f"file_name,label\n{rows}")
        return list(read(tmp_path).labelled().class_names)

    for first, second in (("0", "0.0"), ("+1", "1"), ("10", "1e1"), (".5", "0.5"), ("01", "1")):
        message = rf"column 'label' of .*labels.csv, where all .* numbers; got '{re.escape(first)}' and '{second}'\."
        with pytest.raises(DataError, match=message):
            labels("7", second, first, second, "")
    two_numbers_that_one_float_would_be = "9007199254740992", "9007199254740993"
    for allowed in (two_numbers_that_one_float_would_be, ("0", "0.0", "none"), ("1e1", "1e10"), ("1_0", "10")):
        assert labels(*allowed) == sorted(allowed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file_name,label\n../0.png,a", r"files in the folder of .*; got '\.\./0\.png'"),
        ("file_name,label\n/etc/passwd,a", "got '/etc/passwd'"),
        ("file_name,label\n0.png,a\x00\xff", "there are none; left out"),
        ("file_name,label,split\n0.png,a,fold1", "train, valid or test in column split of .*'fold1'"),
        ("file_name,caption\n0.png,a", r"columns file_name and label in .*its columns are file_name, caption\. Set"),
        ("file_name,label\n0.png,a\n./0.png,b", r"one class and one split .*; \./0\.png has several"),
        ("file_name,label,split\n0.png,a,train\n0.png,a,test", "0\\.png has several"),
        ("file_name,label,label\n0.png,a,b", "a column's name comes twice: file_name, label, label"),
    ],
)
def test_a_list_that_cannot_be_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "metadata.csv").write_text(text)
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match=message):
        read(tmp_path).labelled()


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "labels.csv"])
def test_a_list_that_is_no_file_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match=f"list of images and labels in .*{name}; it cannot be read: .*it is no file"):
        read(tmp_path).labelled()


@pytest.mark.parametrize("suffix", ["zip", "tar", "tgz", "tar.xz"])
def test_an_archive_is_read_as_the_folder_in_it(tmp_path: Path, suffix: str) -> None:
    write_class_folders(tmp_path / "files/photos/train", CLASSES[:3], 4)
    kind = {"tgz": "gztar", "tar.xz": "xztar"}.get(suffix, suffix)
    made = shutil.make_archive(str(tmp_path / "made"), kind, tmp_path / "files")
    archive = Path(made).rename(tmp_path / f"photos.{suffix}")
    for limit in (0, 100):
        tasks = [
            read(place, classes_per_task=3, memory_limit_mb=limit).open(0)
            for place in (archive, tmp_path / "files/photos")
        ]
        first, second = (next(iter(stream)) for stream in tasks)
        assert first.classes == second.classes
        assert torch.equal(all_pixels(first.train), all_pixels(second.train))


@pytest.mark.parametrize("name", ["../out.png", "/tmp/out.png", "a/../../out.png", "C:\\out.png"])
@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_nothing_leaves_an_archive(tmp_path: Path, suffix: str, name: str) -> None:
    archive = tmp_path / f"x.{suffix}"
    if suffix == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            packed.writestr(name, b"x")
    else:
        with tarfile.open(archive, "w") as packed_tar:
            packed_tar.addfile(tarfile.TarInfo(name))
    (tmp_path / "inside").mkdir()
    with pytest.raises(DataError, match="a place outside of it"):
        unpack(archive, tmp_path / "inside")
    assert not list((tmp_path / "inside").rglob("*"))


def test_an_archive_that_expands_is_refused_and_links_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lasem.data.folders._SLACK_BYTES", 2**20)
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as packed:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            member = tarfile.TarInfo(f"a/{kind.decode()}")
            member.type, member.linkname = kind, "/etc/passwd"
            packed.addfile(member)
    (tmp_path / "inside").mkdir()
    assert unpack(tmp_path / "x.tar.gz", tmp_path / "inside") == 4
    assert not list((tmp_path / "inside").iterdir())
    with zipfile.ZipFile(tmp_path / "y.zip", "w", zipfile.ZIP_DEFLATED) as packed_zip:
        for k in range(3):
            packed_zip.writestr(f"{k}", bytes(2**19))
    with pytest.raises(DataError, match="hold more than there is room for"):
        unpack(tmp_path / "y.zip", tmp_path / "inside")
    (tmp_path / "z.zip").write_bytes(b"PK\3\4 no zip file")
    with pytest.raises(DataError, match=r"an archive that can be unpacked at .*z\.zip"):
        read(tmp_path / "z.zip").labelled()


def test_an_archive_of_a_long_name_or_of_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lasem.data.folders._SLACK_BYTES", 2**20)
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz", format=tarfile.GNU_FORMAT) as packed:
        packed.addfile(tarfile.TarInfo("a" * 2**23))
    (tmp_path / "x.tar").touch()
    os.truncate(tmp_path / "x.tar", 10**12)
    for name, said in (("x.tar.gz", "hold more than there is room for"), ("x.tar", "Expected")):
        with pytest.raises(DataError, match=said):
            read(tmp_path / name).labelled()


def test_an_archive_of_windows_is_read_and_messages_name_its_files(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        link, files = zipfile.ZipInfo("a/link.png"), [f"{name}\\{k}.png" for name in "ab" for k in range(2)]
        link.external_attr = 0o120777 << 16
        packed.writestr(link, "0.png")
        for file in files:
            member = zipfile.ZipInfo("x")
            member.filename = file
            packed.writestr(member, png(random_images(1)[0])[: 20 if file == "b\\1.png" else None])
    data = read(tmp_path / "x.zip").labelled()
    assert (data.labels.tolist(), counted(data.left_out)) == ([0, 0, 1, 1], ("1 link in an archive",))
    with pytest.raises(DamagedError, match=r"but .*/x\.zip/b/1\.png cannot"):
        data.take(torch.arange(4))


@pytest.mark.parametrize("memory_limit_mb", [1024, 0])
def test_all_damaged_files_are_named_or_left_out(tmp_path: Path, memory_limit_mb: int) -> None:
    write_class_folders(tmp_path, CLASSES[:2], 8, size=40)
    for file, cut in (("ant/001.png", -300), ("bee/002.png", -200), ("bee/004.png", 20)):
        (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:cut])
    found = read(tmp_path, memory_limit_mb=memory_limit_mb)
    with pytest.raises(DataError, match=r"(ant|bee)/00[124]\.png cannot: "):  # before any training
        found.open(0)[0]
    named = r"but 3 cannot: .*ant/001\.png .*bee/002\.png .*bee/004\.png .*--skip-damaged"
    with pytest.raises(DamagedError, match=named):
        raise DamagedError(found.labelled().damaged())
    kept = read(tmp_path, memory_limit_mb=memory_limit_mb, skip_damaged=True)
    assert counted(kept.labelled().left_out) == ("3 damaged",)
    task = kept.open(0)[0]
    assert (len(task.train) + len(task.valid) + len(task.test), task.left_out) == (13, ("3 damaged",))
    for file in (tmp_path / "bee").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match=r"Class 'bee' has too few images: all of them in .* are damaged"):
        kept.labelled()


def test_what_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "~1.png").write_bytes(png(random_images(1)[0]))
    monkeypatch.chdir(tmp_path)
    assert existing_path("~1.png") == Path("~1.png")
    for place, message in (
        ("pipe", "pipe or a device"),
        ("loop", r"a link that leads nowhere\.$"),
        ("~2", "none"),
        ("\0", "none"),
    ):
        with pytest.raises(DataError, match=message):
            existing_path(place)
    with pytest.raises(DataError, match="too long"):
        read(tmp_path / ("x" * 300)).labelled()
    write_class_folders(tmp_path / "data", CLASSES[:2], 2)

    def scandir(place: Path) -> None:
        raise PermissionError(13, "Permission denied", str(place))

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"that can be read; .*Permission denied"):
        read(tmp_path / "data").labelled()
