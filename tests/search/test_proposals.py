from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lasem.errors import ConfigError
from lasem.search import AbstractTrials, Exhaustive, PrefixSearch, RandomSearch
from lasem.space import full

KINDS: list[type[AbstractTrials]] = [Exhaustive, RandomSearch, PrefixSearch]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)


def proposed(search: AbstractTrials, depth: int, seed: int = 0) -> list[str]:
    """Everything that is tried, if every accuracy is the same."""
    space, tried = search.space(depth, 1), dict[int, float]()
    generator = torch.Generator().manual_seed(seed)
    while candidates := search.propose(space, tried, generator):
        tried |= dict.fromkeys(candidates, 0.5)
    return [str(space[position]) for position in tried]


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        (Exhaustive(), ["S", "T"]),
        (Exhaustive(), ["SSS", "SST", "STS", "STT", "TSS", "TST", "TTS", "TTT"]),
        (Exhaustive(groups=(2, 1)), ["SSS", "SST", "TTS", "TTT"]),
        (PrefixSearch(), ["S", "T"]),
        (PrefixSearch(), ["SSSS", "TSSS", "TTSS", "TTTS", "TTTT"]),
        (PrefixSearch(groups=(2, 1, 2)), ["SSSSS", "TTSSS", "TTTSS", "TTTTT"]),
        (PrefixSearch(), ["T" * k + "S" * (40 - k) for k in range(41)]),  # a deep network needs no groups
    ],
    ids=str,
)
def test_what_is_tried_and_in_which_order(search: AbstractTrials, expected: list[str]) -> None:
    assert proposed(search, len(expected[0])) == expected == [str(c) for c in search.space(len(expected[0]), 1)]


@every_kind
def test_one_configuration_is_tried_as_it_is(kind: type[AbstractTrials]) -> None:
    space = kind().space(3, 0)
    assert kind().propose(space, {}, torch.Generator()) == (0,)
    assert kind().propose(space, {0: 0.5}, torch.Generator()) == ()


def naive_best(letters: list[str], accuracies: list[float]) -> int:
    best = 0
    for position in range(1, len(letters)):
        more = letters[position].count("T") > letters[best].count("T")
        better = accuracies[position] > accuracies[best]
        if better or (accuracies[position] == accuracies[best] and more):
            best = position
    return best


@given(st.lists(st.sampled_from([0.2, 0.5, 0.8]), min_size=8, max_size=8), st.permutations(range(8)))
def test_the_best_is_the_most_accurate_then_transfers_most_then_comes_first(
    accuracies: list[float], order: list[int]
) -> None:
    tried = {position: accuracies[position] for position in order}
    assert Exhaustive().best(full(3), tried) == naive_best([str(c) for c in full(3)], accuracies)


def test_more_configurations_than_can_be_listed_are_refused() -> None:
    with pytest.raises(ConfigError, match="put more layers into each group"):
        Exhaustive().space(17, 1)
    assert len(Exhaustive(groups=(5, 4, 4, 4)).space(17, 1)) == 16


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


def test_groups_are_drawn_together() -> None:
    assert set(proposed(RandomSearch(num_candidates=9, groups=(1, 2)), 3)) == {"SSS", "STT", "TSS", "TTT"}
