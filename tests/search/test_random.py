from __future__ import annotations

from collections import Counter

import pytest
import torch

from lasem.errors import ConfigError
from lasem.search import RandomSearch
from lasem.space import full

from .test_exhaustive import proposed


@pytest.mark.parametrize(("num", "depth", "expected"), [(5, 4, 5), (5, 2, 4), (1, 3, 1)])
def test_as_many_different_ones_as_asked_for_or_all(num: int, depth: int, expected: int) -> None:
    tried = proposed(RandomSearch(num_candidates=num), depth)
    assert len(tried) == len(set(tried)) == expected
    assert set(tried) <= {str(c) for c in full(depth)}


def test_the_generator_alone_decides() -> None:
    search = RandomSearch(num_candidates=3)
    draws = [proposed(search, 4, seed) for seed in range(6)]
    assert draws == [proposed(search, 4, seed) for seed in range(6)]
    assert len(set(map(tuple, draws))) > 1


def test_every_configuration_is_equally_probable() -> None:
    """Of 16 configurations 4 are drawn, 800 times: 200 each, with a standard deviation of 12.2."""
    generator = torch.Generator().manual_seed(0)
    search, space = RandomSearch(num_candidates=4), full(4)
    found = Counter(position for _ in range(800) for position in search.propose(space, {}, generator))
    assert len(found) == 16
    assert all(abs(count - 200) < 4.5 * 12.2 for count in found.values())


def test_groups_decide_together() -> None:
    assert set(proposed(RandomSearch(num_candidates=9, groups=(1, 2)), 3)) == {"SSS", "STT", "TSS", "TTT"}


def test_at_least_one() -> None:
    with pytest.raises(ConfigError, match=r"RandomSearch\.num_candidates must be at least 1; got 0"):
        RandomSearch(num_candidates=0)
