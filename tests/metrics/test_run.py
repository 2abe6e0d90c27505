from pathlib import Path

import numpy as np
import pytest

from lasem.errors import StorageError
from lasem.metrics import Run, load_run, load_runs
from lasem.records import EvaluationRecord, Record, TimingRecord, to_json

from .records import epoch_record, task_record

RECORDS: tuple[Record, ...] = (
    epoch_record("a", 1),
    epoch_record("a", 2),
    task_record("a", 0, peak_accuracy=0.6),
    EvaluationRecord(after_task="a", accuracies={"a": 0.5}),
    epoch_record("b", 1),
    task_record("b", 1, peak_accuracy=0.8),
    EvaluationRecord(after_task="b", accuracies={"a": 0.4, "b": 0.7}),
    epoch_record("c", 1),
)


def write(folder: Path, records: tuple[Record, ...], timings: tuple[Record, ...] = ()) -> Path:
    folder.mkdir(parents=True)
    (folder / "records.jsonl").write_text("".join(to_json(r) + "\n" for r in records), encoding="utf-8")
    if timings:
        (folder / "timings.jsonl").write_text("".join(to_json(r) + "\n" for r in timings), encoding="utf-8")
    return folder


def test_tasks_epochs_and_the_matrix() -> None:
    run = Run(0, RECORDS)
    assert [task.task for task in run.tasks] == ["a", "b"]
    assert [record.epoch for record in run.epochs("a")] == [1, 2]
    assert run.epochs("z") == ()
    assert run.unfinished_task == "c"
    np.testing.assert_array_equal(run.accuracy_matrix, [[0.5, np.nan], [0.4, 0.7]])
    np.testing.assert_array_equal(run.peak_accuracies, [0.6, 0.8])
    np.testing.assert_array_equal(run.final_accuracies, [0.4, 0.7])


def test_a_run_without_records_is_empty() -> None:
    run = Run(0, ())
    assert run.tasks == () == run.evaluated_tasks
    assert run.unfinished_task is None
    assert run.accuracy_matrix.shape == (0, 0)
    assert run.final_accuracies.shape == (0,)


def test_a_task_that_was_not_evaluated_has_no_row() -> None:
    run = Run(0, RECORDS[:6])
    assert [task.task for task in run.tasks] == ["a", "b"]
    assert [task.task for task in run.evaluated_tasks] == ["a"]
    assert run.accuracy_matrix.shape == (1, 1)


def test_what_was_recorded_twice_counts_once() -> None:
    run = Run(0, (epoch_record("a", 1, loss=9.0), *RECORDS))
    assert [record.loss for record in run.epochs("a")] == [1.0, 1.0]


def test_a_seed_is_read_from_its_folder(tmp_path: Path) -> None:
    slow = TimingRecord(task="a", epoch=1, seconds_training=9.0, seconds_evaluating=1.0)
    fast = TimingRecord(task="a", epoch=1, seconds_training=2.0, seconds_evaluating=1.0)
    run = load_run(write(tmp_path / "seeds" / "3", RECORDS, (slow, fast)))
    assert (run.seed, run.records, run.timings) == (3, RECORDS, (fast,))


def test_timings_may_be_missing(tmp_path: Path) -> None:
    assert load_run(write(tmp_path / "0", RECORDS)).timings == ()


def test_seeds_come_by_number(tmp_path: Path) -> None:
    for seed in (10, 2):
        write(tmp_path / "seeds" / str(seed), RECORDS)
    (tmp_path / "seeds" / "4").mkdir()  # claimed, nothing recorded yet
    assert [run.seed for run in load_runs(tmp_path)] == [2, 10]


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Expected the folder of a run"):
        load_runs(tmp_path)
    with pytest.raises(StorageError, match="Use load_runs"):
        load_run(tmp_path / "results")
    with pytest.raises(StorageError, match="Expected records at"):
        load_run(tmp_path / "7")
