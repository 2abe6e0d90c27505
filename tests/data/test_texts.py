"""Texts from lists and parquet files: which rows are used, their classes, splits and tasks, and their token ids."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lasem.data import Labelled, Part, Task, TextReader, Texts, Tokenizer, Vocabulary
from lasem.data.sources import Source, task_from
from lasem.data.texts import texts_in
from lasem.errors import ConfigError, DataError

ROWS = [
    {"review": "good, 'very' \"good\"", "stars": "up"},
    {"review": "two\nlines", "stars": "down"},
    {"review": "fine", "stars": "up"},
    {"review": " ", "stars": "down"},
    {"review": "none", "stars": ""},
    {"review": "dull", "stars": "down"},
]


def write(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """A table of the kind that the file's ending says."""
    file.parent.mkdir(exist_ok=True)
    if file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), file)
    elif file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with file.open("w", newline="") as opened:
            table = csv.DictWriter(opened, list(rows[0]), delimiter="\t" if file.suffix == ".tsv" else ",")
            table.writeheader()
            table.writerows(rows)
    return file


def read(place: Path, **more: Any) -> TextReader:
    return TextReader(path=str(place), **{"text_column": "review", "label_column": "stars", **more})


def contents(data: Labelled) -> list[tuple[str, str, Part]]:
    texts = data.take(torch.arange(len(data.labels))).texts
    assert texts is not None
    parts = map(Part, data.parts.tolist())
    return list(zip(texts, (data.class_names[k] for k in data.labels.tolist()), parts, strict=True))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_two_spellings_of_one_number_are_refused(kind: str, tmp_path: Path) -> None:
    rows = [{"review": "fine", "stars": stars} for stars in ("1", "0", "2.0")]
    write(tmp_path / f"train.{kind}", rows)
    write(tmp_path / f"test.{kind}", [{"review": "dull", "stars": "2"}])
    message = r"one spelling of each class in column 'stars' of .* and others, .* got '2' and '2\.0'\."
    with pytest.raises(DataError, match=message):
        read(tmp_path).labelled()
    write(tmp_path / f"test.{kind}", [{"review": "dull", "stars": "1"}])
    assert read(tmp_path).labelled().class_names == ["0", "1", "2.0"]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_every_kind_of_table_is_read_alike(kind: str, tmp_path: Path) -> None:
    data = read(write(tmp_path / f"reviews.{kind}", ROWS)).labelled()
    expected = [(row["review"], row["stars"], Part.TRAIN) for row in ROWS if row["review"].strip() and row["stars"]]
    assert contents(data) == expected
    assert data.left_out == ((Part.TRAIN, "empty"), (Part.TRAIN, "without a label"))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_folder_has_a_file_for_each_split(kind: str, tmp_path: Path) -> None:
    for name, rows in (("train", ROWS[:3]), ("valid", ROWS[3:4] + ROWS[5:]), ("test", ROWS[:1])):
        write(tmp_path / f"{name}.{kind}", rows)
    assert sorted(part for *_, part in contents(read(tmp_path).labelled())) == [Part.TRAIN] * 3 + [
        Part.VALID,
        Part.TEST,
    ]
    source = Source(path=str(tmp_path), text_column="review", label_column="stars")
    task = task_from("t", source, image_size=None, channels=3, seed=0)
    assert [len(split) for split in (task.train, task.valid, task.test)] == [3, 1, 1]
    assert (task.classes, task.test.images.texts, task.left_out) == (("down", "up"), (ROWS[0]["review"],), ("1 empty",))


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_column_may_have_the_split_and_labels_may_be_numbers(kind: str, tmp_path: Path) -> None:
    parts = ["train", "validation", "train", "test", None]
    rows = [{"review": f"text {k}", "stars": k % 3 - 1, "split": part} for k, part in enumerate(parts)]
    data = read(write(tmp_path / f"x.{kind}", rows)).labelled()
    assert contents(data) == [("text 1", "0", Part.VALID), ("text 2", "1", Part.TRAIN), ("text 4", "0", Part.TRAIN)]
    assert data.left_out == ((Part.TRAIN, "without a label"), (Part.TEST, "without a label"))
    with pytest.raises(DataError, match=r"Expected train, valid or test in column split .*got 'often'"):
        read(write(tmp_path / f"x.{kind}", [{**row, "split": "often"} for row in rows])).labelled()


def test_tasks_are_drawn_by_class_or_by_a_column(tmp_path: Path) -> None:
    rows = [
        {"review": f"{kind} {k}", "stars": kind[:5], "shop": shop}
        for shop in ("toys & games", "books")
        for kind in ("worst", "plain", "solid", "great")
        for k in range(5)
    ]
    place = write(tmp_path / "reviews.csv", rows)
    stream = read(place, classes_per_task=2).open(0)
    assert [task.name for task in stream] == ["reviews-0", "reviews-1"]
    assert sorted(name for task in stream for name in task.classes) == ["great", "plain", "solid", "worst"]
    by_shop = read(place, task_column="shop", train_per_class=2).open(0)
    assert [task.name for task in by_shop] == ["reviews-toys-games", "reviews-books"]
    assert [len(task.train) for task in by_shop] == [8, 8]
    assert by_shop[1].num_classes == 4
    assert len(read(place, task_column="shop", num_tasks=1).open(0)) == 1
    with pytest.raises(ConfigError, match=r"at most 2, the number of values in column 'shop'; got 3"):
        read(place, task_column="shop", num_tasks=3).open(0)
    with pytest.raises(ConfigError, match=r"task_column names tasks; set one"):
        read(place, task_column="shop", classes_per_task=2)
    with pytest.raises(DataError, match=r"Class 'great' has too few texts: its train split must hold at least 118"):
        read(place, train_per_class=99).open(0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "good,up\nbad,down\n", r"column 'review' in .*its columns are good, up\. Its first line must name"),
        ("x.csv", "review,stars\nfine, but long,up\n", r"not as many cells as the first line; quote.*\(row 1\)"),
        ("x.csv", "review,stars\ngood,up\nof two\nlines,up\n", r"not as many cells .*\(row 2\)"),
        ("x.csv", 'review,stars\ngood,up\n"open,up\n', r"unexpected end of data \(row 2\)"),
        (
            "x.csv",
            "review,stars\n,up\ngood,\n",
            r"Expected texts with labels in .*left out: 1 empty, 1 without a label",
        ),
        ("x.csv", "", r"its columns are none"),
        ("x.csv", b"review,stars\n\xff,up\n", r"cannot be read: .*utf-8.*"),
        ("x.jsonl", '{"review": ["good"], "stars": 1}\n', r"column 'review' of .*; row 1 has a list"),
        ("x.jsonl", '{"review": 5, "stars": 1}\n', r"Expected texts in .*; got the number 5"),
        ("x.jsonl", '{"review": "a", "stars": 1}\n{"review\n', r"Invalid control character.*\(row 2\)"),
        ("x.jsonl", '{"review": "a", "star": 1}\n', r"column 'stars' .*Did you mean 'star'"),
        ("x.txt", "good\n", r"Expected a table of texts \(\.csv, \.tsv, \.jsonl, \.parquet, \.arrow\)"),
    ],
)
def test_what_is_no_table_of_texts_is_refused(name: str, content: str | bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / name).labelled()


def test_numbers_in_parquet_are_no_texts(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", [{"review": 1, "stars": 1}])
    with pytest.raises(DataError, match=r"Expected strings in column 'review' of .*--text-column"):
        read(tmp_path / "x.parquet").labelled()


def test_texts_without_labels_are_lines_or_a_column(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("one, two\n\nthree\u2028four")
    assert list(texts_in(tmp_path / "x.txt", "text")) == ["one, two", "three\u2028four"]
    assert list(texts_in(write(tmp_path / "x.jsonl", ROWS), "review")) == [row["review"].strip() for row in ROWS]


def tokenizer() -> Tokenizer:
    """Words by spaces, with a token before and after them."""
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: k for k, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "?", "good", "bad", "a", "film"])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="?"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    made.enable_padding(length=20)
    made.enable_truncation(3)
    return Tokenizer(made.to_str(), tokenizers.__version__)


def task(*more: str) -> Task:
    texts = ["a good film", "a bad film", *more]
    return Task.from_texts("films", train=(texts, ["+", "-"] + ["+"] * len(more)), valid=(texts[:2], ["+", "-"]),
                           test=(texts[1:2], ["-"]))  # fmt: skip


def test_a_tokenizer_makes_token_ids_of_a_task() -> None:
    vocabulary = Vocabulary(8, 0, tokenizer, any_length=True)
    read = task("good " * 9, "a \ud800").in_tokens(vocabulary, 6)
    assert read.image_shape == (1, 1, 6)
    ids = [[1, 6, 4, 7, 2, -1], [1, 6, 5, 7, 2, -1], [1, 4, 4, 4, 4, 2], [1, 6, 3, 2, -1, -1]]
    assert read.train.images.take(torch.arange(4)).flatten(1).tolist() == ids
    assert read.test.images.take(torch.arange(1)).flatten(1).tolist() == [ids[1]]
    assert read.left_out == ("the ends of 1 of 7 texts, which is longer than 6 tokens",)
    assert read.in_tokens(vocabulary, 6) is read
    assert task().in_tokens(vocabulary, 6).image_shape == (1, 1, 5)  # as long as the longest text
    assert task().in_tokens(Vocabulary(8, 0, tokenizer), 6).image_shape == (1, 1, 6)
    with pytest.raises(ConfigError, match="room for a word besides the tokens around a text; got 2"):
        task().in_tokens(vocabulary, 2)
    with pytest.raises(DataError, match=r"the network has no tokenizer\. Make it with .*from_transformers"):
        task().in_tokens(Vocabulary(8), 6)
    with pytest.raises(ConfigError, match=r"that tokenizers .* can read, written by version 0\.0"):
        task().in_tokens(Vocabulary(8, None, lambda: Tokenizer("{}", "0.0")), 6)


def test_texts_are_strings_and_have_no_numbers() -> None:
    with pytest.raises(DataError, match="no numbers before a network's tokenizer"):
        task().train.images.take(torch.arange(1))
    with pytest.raises(DataError, match=r"the network takes images.*--net hf:FOLDER"):
        task().in_tokens(None, 6)
    for wrong, message in (("good", "got str"), (["a", 5], "text 1 is a int"), (["a", " "], "none in text 1")):
        with pytest.raises(DataError, match=message):
            Texts(wrong)  # type: ignore[arg-type]
