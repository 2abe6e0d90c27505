import math
from pathlib import Path

import pytest

from lasem.errors import StorageError
from lasem.metrics import load_run
from lasem.report import result_table

from .fake_run import make_records, task_names, write_seed


def test_rows_hold_what_was_recorded(one_seed: Path) -> None:
    run = load_run(one_seed / "seeds" / "0")
    (table,) = result_table(one_seed).seeds
    assert [row.task for row in table.rows] == list(task_names(4))
    for row, record in zip(table.rows, run.tasks, strict=True):
        assert row.peak_accuracy == record.peak_accuracy
        assert row.final_accuracy == run.evaluations["cifar-3"][record.task]
        assert row.forgetting_ratio == pytest.approx(row.final_accuracy / row.peak_accuracy)
        assert (row.configuration, row.parameters_added) == (record.configuration, record.parameters_added)
        assert row.seconds_training > 0


def test_means_over_seeds(three_seeds: Path) -> None:
    result = result_table(three_seeds)
    assert result.finished
    assert result.averaged_seeds == (0, 1, 2)
    peaks = [table.summary.peak_accuracy for table in result.seeds]
    assert result.over_seeds["peak_accuracy"].mean == pytest.approx(sum(peaks) / 3)
    second = result.tasks[1]
    assert second.peak_accuracy.mean == pytest.approx(sum(t.rows[1].peak_accuracy for t in result.seeds) / 3)
    assert second.configurations == tuple(table.rows[1].configuration for table in result.seeds)


def test_an_unfinished_run_shows_the_task_that_was_cut_off(killed: Path) -> None:
    result = result_table(killed)
    assert not result.finished
    last = result.seeds[0].rows[-1]
    assert (last.task, last.learned, last.num_epochs) == ("cifar-2", False, 6)
    assert math.isnan(last.peak_accuracy)
    assert len(result.tasks) == 2  # only what was learned is averaged


def test_unfinished_seeds_are_left_out_of_the_means(tmp_path: Path) -> None:
    write_seed(tmp_path, 0, *make_records(0, task_names(3), num_epochs=3))
    write_seed(tmp_path, 1, *make_records(1, task_names(1), num_epochs=3))
    result = result_table(tmp_path)
    assert result.averaged_seeds == (0,)
    assert result.over_seeds["peak_accuracy"].num_seeds == 1


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Expected the folder of a run"):
        result_table(tmp_path)
