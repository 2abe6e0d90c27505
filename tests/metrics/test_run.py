import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import permutation_test, ttest_1samp

from lasem.errors import StorageError
from lasem.metrics import (
    QUANTITIES,
    Run,
    aggregate,
    load_run,
    load_runs,
    paired_difference,
    seconds_evaluating,
    seconds_training,
    sign_flip_p_value,
    statistic,
    summarise,
)
from lasem.records import EvaluationRecord, Record, TaskRecord, TimingRecord, to_json

from .records import MATRIX, PEAK, epoch_record, task_record

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


TIMINGS = tuple(
    TimingRecord(task=f"t{i}", epoch=1, seconds_training=2.0, seconds_evaluating=0.5) for i in range(len(MATRIX))
)


def fixture_run(seed: int = 0, shift: float = 0.0, num_tasks: int = 4) -> Run:
    """The fixture's matrix as a run, every accuracy moved by ``shift``."""
    records: list[Record] = []
    for i, row in enumerate(MATRIX[:num_tasks]):
        configuration = "TT" if i == 0 else "ST"
        records.append(
            task_record(
                f"t{i}", i, peak_accuracy=PEAK[i] + shift, configuration=configuration, parameters_shared=70 + 5 * i
            )
        )
        seen = {f"t{j}": accuracy + shift for j, accuracy in enumerate(row[: i + 1])}
        records.append(EvaluationRecord(after_task=f"t{i}", accuracies=seen))
    return Run(seed, tuple(records), TIMINGS)


def test_the_fixture_as_a_run() -> None:
    summary = summarise(fixture_run())
    assert summary.num_tasks == 4
    assert summary.peak_accuracy == pytest.approx(0.8575)
    assert summary.final_accuracy == pytest.approx(0.7975)
    # 0.9, (0.95 + 0.8) / 2, (0.75 + 0.6 + 0.85) / 3 and 0.7975
    assert summary.average_incremental_accuracy == pytest.approx((0.9 + 0.875 + 2.2 / 3 + 0.7975) / 4)
    assert summary.forgetting_ratio == pytest.approx(0.9315, abs=5e-5)
    assert summary.forgetting_ratio_of_means == pytest.approx(0.9300, abs=5e-5)
    assert summary.forgetting == pytest.approx(0.0967, abs=5e-5)
    assert summary.backward_transfer == pytest.approx(-0.08)
    assert summary.fraction_layers_shared == 0.5  # the first task, which shares everything, is left out
    assert summary.parameters_total == 140
    assert summary.parameters_shared == 85  # after the last task
    assert summary.parameters_added == 46  # 10 + 11 + 12 + 13
    assert summary.parameters_of_separate_models == 4 * 110
    assert summary.parameters_per_task == 10
    assert (summary.seconds_training, summary.seconds_evaluating) == (8.0, 2.0)


def test_over_seeds_the_deviation_is_that_of_a_sample() -> None:
    summaries = [summarise(fixture_run(seed, shift)) for seed, shift in enumerate((0.0, 0.01, 0.05))]
    over_seeds = aggregate(summaries)
    assert set(over_seeds) == set(QUANTITIES)
    peak = over_seeds["peak_accuracy"]
    assert peak.mean == pytest.approx(0.8575 + 0.02)
    assert peak.deviation == pytest.approx(math.sqrt((0.02**2 + 0.01**2 + 0.03**2) / 2))
    assert peak.num_seeds == 3


def test_one_seed_has_no_deviation() -> None:
    assert math.isnan(statistic([0.5]).deviation)
    assert statistic([0.5, float("nan")]).num_seeds == 1
    assert math.isnan(statistic([]).mean)
    assert math.isnan(statistic([float("inf"), 0.5]).deviation)


def test_a_run_that_has_only_begun() -> None:
    summary = summarise(Run(0, (epoch_record("a", 1),)))
    assert summary.num_tasks == 0
    assert math.isnan(summary.peak_accuracy)
    assert math.isnan(summary.seconds_training)
    assert (summary.parameters_total, summary.parameters_of_separate_models) == (0, 0)
    assert math.isnan(summarise(fixture_run(num_tasks=1)).parameters_per_task)  # growth needs two tasks


def test_seconds_of_training_are_apart_from_those_of_evaluation() -> None:
    timings = [
        TimingRecord(task="a", epoch=1, seconds_training=2.0, seconds_evaluating=0.5),
        TimingRecord(task="a", epoch=None, seconds_training=0.0, seconds_evaluating=1.0),
        TimingRecord(task="b", epoch=1, seconds_training=4.0, seconds_evaluating=0.25),
    ]
    assert (seconds_training(timings), seconds_evaluating(timings)) == (6.0, 1.75)
    assert (seconds_training(timings, "a"), seconds_evaluating(timings, "a")) == (2.0, 1.5)
    assert math.isnan(seconds_training(timings, "c"))
    assert math.isnan(seconds_evaluating([]))


def learned(seed: int, peaks: list[float], finals: list[float]) -> Run:
    names = [f"task-{index}" for index in range(len(peaks))]
    records: list[TaskRecord | EvaluationRecord] = []
    for index, (name, peak) in enumerate(zip(names, peaks, strict=True)):
        accuracies = dict(zip(names[: index + 1], finals, strict=False))
        records += [
            task_record(name, index, peak_accuracy=peak),
            EvaluationRecord(after_task=name, accuracies=accuracies),
        ]
    return Run(seed, tuple(records), ())


def test_difference_is_over_the_seeds_and_tasks_that_both_have() -> None:
    first = [learned(0, [0.5, 0.7], [0.4, 0.7]), learned(1, [0.6, 0.6], [0.6, 0.6]), learned(5, [1.0, 1.0], [1.0, 1.0])]
    second = [
        learned(1, [0.7, 0.6], [0.1, 0.1]),
        learned(0, [0.4, 0.4], [0.4, 0.5]),
        learned(2, [0.0, 0.0], [0.0, 0.0]),
    ]
    found = paired_difference(first, second)
    assert found.mean == pytest.approx(np.mean([0.1, 0.3, -0.1, 0.0]))
    assert (found.num_pairs, found.num_seeds, found.num_seeds_above) == (4, 2, 1)
    assert paired_difference(second, first).mean == -found.mean
    assert paired_difference(second, first).p_value == found.p_value
    finals = paired_difference(first, second, "final_accuracies")
    assert finals.mean == pytest.approx(np.mean([0.0, 0.2, 0.5, 0.5]))
    nothing = paired_difference(first, [])
    assert nothing.num_pairs == 0
    assert math.isnan(nothing.mean)
    assert math.isnan(nothing.p_value)


def test_few_pairs_are_counted_exactly() -> None:
    values = [0.3, -0.1, 0.2, 0.05]
    observed = abs(sum(values))
    sums = [abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in product((1, -1), repeat=4)]
    assert sign_flip_p_value(values) == sum(total >= observed - 1e-12 for total in sums) / 16
    assert sign_flip_p_value([0.1] * 5) == 2 / 32
    assert sign_flip_p_value([0.0, 0.0]) == 1


def test_many_pairs_agree_with_scipy() -> None:
    values = np.random.default_rng(3).normal(0.4, 1, 40)
    wanted = permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(1)
    ).pvalue
    found = sign_flip_p_value(values)
    assert found == pytest.approx(wanted, abs=0.01)
    assert found == pytest.approx(ttest_1samp(values, 0).pvalue, abs=0.02)
    assert found == sign_flip_p_value(values)  # the same every time
