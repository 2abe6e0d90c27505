import math
from itertools import product

import numpy as np
import pytest
from scipy.stats import permutation_test, ttest_1samp

from lasem.metrics import Run, paired_difference, sign_flip_p_value
from lasem.records import EvaluationRecord, TaskRecord

from .records import task_record


def run(seed: int, peaks: list[float], finals: list[float]) -> Run:
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
    first = [run(0, [0.5, 0.7], [0.4, 0.7]), run(1, [0.6, 0.6], [0.6, 0.6]), run(5, [1.0, 1.0], [1.0, 1.0])]
    second = [run(1, [0.7, 0.6], [0.1, 0.1]), run(0, [0.4, 0.4], [0.4, 0.5]), run(2, [0.0, 0.0], [0.0, 0.0])]
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
