from dataclasses import replace
from pathlib import Path

import pytest
from metrics.records import epoch_record

from lasem.errors import StorageError
from lasem.records import EpochRecord, EvaluationRecord, TimingRecord, from_json, of_kind, read_records, to_json

EPOCH = epoch_record("birds", 1, loss=0.1 + 0.2, valid_accuracy=1 / 3)
ROW = EvaluationRecord(after_task="birds", accuracies={"birds": 2 / 3})


@pytest.mark.parametrize(
    "record", [EPOCH, ROW, TimingRecord(task="a", epoch=None, seconds_training=0.1, seconds_evaluating=0)]
)
def test_what_is_written_is_read_back_to_the_last_bit(record: EpochRecord | EvaluationRecord | TimingRecord) -> None:
    line = to_json(record)
    assert "\n" not in line
    assert from_json(line) == record


def test_names_that_are_not_utf8_can_be_written(tmp_path: Path) -> None:
    record = EvaluationRecord(after_task="鳥\udcff\u2028\n", accuracies={})
    path = tmp_path / "records.jsonl"
    path.write_text(to_json(record) + "\n", encoding="utf-8")
    assert read_records(path) == [record]


@pytest.mark.parametrize("left", [b"{", "{\u00e9".encode()[:-1]])
def test_a_last_line_may_end_within_a_letter(left: bytes, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(to_json(ROW).encode() + b"\n" + left)
    assert read_records(path) == [ROW]
    path.write_bytes(left + b"\n")
    with pytest.raises(StorageError):
        read_records(path)


def test_an_unfinished_last_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(to_json(EPOCH) + "\n" + to_json(ROW)[:20], encoding="utf-8")
    assert read_records(path) == [EPOCH]
    assert list(of_kind(read_records(path), EvaluationRecord)) == []


@pytest.mark.parametrize(
    "line",
    ["", "{", "[]", "[" * 100_000, '{"kind": "other"}', '{"kind": "evaluation"}', "3"]
    + [to_json(replace(EPOCH, **{k: v})) for k, v in (("task", 3), ("loss", "x"), ("epoch", 10**20), ("epoch", True))]
    + [to_json(replace(EPOCH, probabilities=(0.5, None))), to_json(replace(ROW, accuracies={"a": "b"}))],  # type: ignore[arg-type]
)
def test_a_damaged_line_is_named(line: str) -> None:
    with pytest.raises(StorageError, match="Expected a record in one line of JSON"):
        from_json(line)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Is this the folder of a run"):
        read_records(tmp_path / "records.jsonl")
    (tmp_path / "records.jsonl").write_bytes(b"\xff\n")
    with pytest.raises(StorageError, match="not UTF-8"):
        read_records(tmp_path / "records.jsonl")


def test_probabilities_of_layers_are_written_only_where_there_are_some() -> None:
    assert "transfer_probabilities" not in to_json(EPOCH)
    deep = replace(EPOCH, transfer_probabilities=(0.25, 0.5))
    assert from_json(to_json(deep)) == deep
