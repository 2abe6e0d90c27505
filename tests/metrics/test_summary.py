import math

import pytest

from lasem.metrics import QUANTITIES, Run, aggregate, statistic, summarise
from lasem.records import EvaluationRecord, Record, TimingRecord

from .fixture import MATRIX, PEAK
from .records import epoch_record, task_record

TIMINGS = tuple(
    TimingRecord(task=f"t{i}", epoch=1, seconds_training=2.0, seconds_evaluating=0.5) for i in range(len(MATRIX))
)


def fixture_run(seed: int = 0, shift: float = 0.0) -> Run:
    """The fixture's matrix as a run, every accuracy moved by ``shift``."""
    records: list[Record] = []
    for i, row in enumerate(MATRIX):
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
    assert summary.parameters_of_separate_models == 440
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


def test_a_run_that_has_only_begun() -> None:
    summary = summarise(Run(0, (epoch_record("a", 1),)))
    assert summary.num_tasks == 0
    assert math.isnan(summary.peak_accuracy)
    assert math.isnan(summary.seconds_training)
    assert summary.parameters_total == 0
