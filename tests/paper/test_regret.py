"""Measures of choices against their definitions, in plain loops."""

import math
from itertools import combinations

import numpy as np
import pytest

from lasem.errors import ShapeError
from paper.regret import accuracies_of_others, among_best, regrets, repeated_share

NUM_SEEDS, NUM_CONFIGURATIONS, NUM_TASKS = 3, 5, 4
ACCURACIES = np.random.default_rng(0).random((NUM_SEEDS, NUM_CONFIGURATIONS, NUM_TASKS))
WEIGHTS = np.random.default_rng(1).dirichlet(np.ones(NUM_CONFIGURATIONS), (NUM_SEEDS, NUM_TASKS)).transpose(0, 2, 1)


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def others(seed: int, task: int) -> list[float]:
    rest = [other for other in range(NUM_SEEDS) if other != seed]
    return [mean([ACCURACIES[other, c, task] for other in rest]) for c in range(NUM_CONFIGURATIONS)]


def test_regret_is_judged_by_the_other_seeds() -> None:
    found, means = regrets(ACCURACIES, WEIGHTS), accuracies_of_others(ACCURACIES)
    for seed in range(NUM_SEEDS):
        for task in range(NUM_TASKS):
            there = others(seed, task)
            assert means[seed, :, task] == pytest.approx(there)
            chosen = sum(WEIGHTS[seed, c, task] * there[c] for c in range(NUM_CONFIGURATIONS))
            assert found[seed, task] == pytest.approx(max(there) - chosen)
    changed = ACCURACIES.copy()
    changed[1] = 9.0  # the seed's own accuracies count for nothing
    assert regrets(changed, WEIGHTS)[1] == pytest.approx(found[1])


def test_the_best_are_within_a_standard_error() -> None:
    found = among_best(ACCURACIES)
    for task in range(NUM_TASKS):
        table = ACCURACIES[:, :, task]
        rest = [
            table[s, c] - mean(list(table[s])) - mean(list(table[:, c])) + mean(list(table.flatten()))
            for s in range(NUM_SEEDS)
            for c in range(NUM_CONFIGURATIONS)
        ]
        variance = sum(x * x for x in rest) / ((NUM_SEEDS - 1) * (NUM_CONFIGURATIONS - 1))
        error = math.sqrt(variance / (NUM_SEEDS - 1) * 2)
        for seed in range(NUM_SEEDS):
            there = others(seed, task)
            assert found[seed, :, task].tolist() == [value >= max(there) - error for value in there]
    assert 0 < found.mean() < 1


def test_the_share_that_repeats() -> None:
    covariances, variances = [], []
    for task in range(NUM_TASKS):
        table = [[x - mean(list(row)) for x in row] for row in ACCURACIES[:, :, task]]
        covariances += [mean([a * b for a, b in zip(one, other, strict=True)]) for one, other in combinations(table, 2)]
        variances += [mean([a * a for a in row]) for row in table]
    assert repeated_share(ACCURACIES) == pytest.approx(mean(covariances) / mean(variances))
    shifted = ACCURACIES[:1] + np.array([0.0, 0.1, 0.3]).reshape(3, 1, 1)  # seeds that differ by a constant
    assert repeated_share(shifted) == pytest.approx(1.0)
    assert math.isnan(repeated_share(np.full((2, 3, 1), 0.5)))
    generator = np.random.default_rng(2)
    truth, noise = (generator.normal(size=(n, 4, 4000)) for n in (1, 2))
    assert repeated_share(3**0.5 * truth + noise) == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize("shape", [(1, 4, 3), (4, 1, 3), (4, 3)])
def test_too_few_are_refused(shape: tuple[int, ...]) -> None:
    for measure in (accuracies_of_others, among_best, repeated_share):
        with pytest.raises(ShapeError, match="at least two seeds and two configurations"):
            measure(np.zeros(shape))
