from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lasem.errors import ConfigError
from lasem.space import Configuration, Space, factorised, full, grouped, listed


@given(st.integers(1, 8))
def test_full_counts_in_binary(depth: int) -> None:
    space = full(depth)
    assert (space.depth, len(space)) == (depth, 2**depth)
    for position, configuration in enumerate(space):
        assert str(configuration) == f"{position:0{depth}b}".replace("0", "S").replace("1", "T")
        assert space.index(configuration) == position
        assert space[position] == configuration


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_groups_decide_together(sizes: list[int]) -> None:
    space = grouped(sizes)
    assert (space.depth, len(space)) == (sum(sizes), 2 ** len(sizes))
    for wide, narrow in zip(space, full(len(sizes)), strict=True):
        assert str(wide) == "".join(letter * size for letter, size in zip(str(narrow), sizes, strict=True))


@pytest.mark.parametrize("sizes", [(5, 4, 4, 4), (5, 4, 4, 2, 2), (5, 4, 2, 2, 2, 2), (5,) + (2,) * 6, (3,) + (2,) * 7])
def test_the_papers_groups_of_17_convolutions(sizes: tuple[int, ...]) -> None:
    assert grouped(sizes).depth == 17
    assert len(grouped(sizes)) == 2 ** len(sizes)


def test_listed_keeps_the_order_given() -> None:
    space = listed(["TS", Configuration((False, False)), "ST"])
    assert [str(c) for c in space] == ["TS", "SS", "ST"]


def test_what_is_no_space() -> None:
    with pytest.raises(ConfigError, match="at least one configuration; got none"):
        listed([])
    with pytest.raises(ConfigError, match=r"same number of layers; got \[1, 2\]"):
        listed(["S", "ST"])
    with pytest.raises(ConfigError, match="must differ from each other; got one twice"):
        listed(["S", "T", "S"])
    with pytest.raises(ConfigError, match=r"at least one layer; got group sizes \[2, 0\]"):
        grouped((2, 0))
    for empty in (lambda: full(0), lambda: grouped(())):
        with pytest.raises(ConfigError, match="at least one layer"):
            empty()
    with pytest.raises(ConfigError, match=r"17 groups have 2\^17 configurations, more than 65536"):
        full(17)
    with pytest.raises(ConfigError, match="Configuration 'TT' is not one of this space's 2"):
        listed(["SS", "ST"]).index(Configuration.parse("TT"))
    with pytest.raises(ConfigError, match=f"not one of this space's {2**70}"):
        factorised((1,) * 70).index(Configuration.parse("TT"))


def test_it_is_immutable() -> None:
    space = full(2)
    with pytest.raises(FrozenInstanceError):
        space.configurations = ()  # type: ignore[misc]
    assert hash(space) == hash(Space(space.configurations))
