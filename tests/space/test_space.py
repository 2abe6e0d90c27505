from collections.abc import Callable
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
        assert (space.index(configuration), space[position]) == (position, configuration)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_groups_decide_together(sizes: list[int]) -> None:
    space = grouped(sizes)
    assert (space.depth, len(space)) == (sum(sizes), 2 ** len(sizes))
    for wide, narrow in zip(space, full(len(sizes)), strict=True):
        assert str(wide) == "".join(letter * size for letter, size in zip(str(narrow), sizes, strict=True))


def test_listed_keeps_the_order_given() -> None:
    space = listed(["TS", Configuration((False, False)), "ST"])
    assert [str(c) for c in space] == ["TS", "SS", "ST"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: listed([]), "at least one configuration; got none"),
        (lambda: listed(["S", "ST"]), r"same number of layers; got \[1, 2\]"),
        (lambda: listed(["S", "T", "S"]), "must differ from each other; got one twice"),
        (lambda: grouped((2, 0)), r"at least one layer; got group sizes \[2, 0\]"),
        (lambda: full(0), "at least one layer"),
        (lambda: grouped(()), "at least one layer"),
        (lambda: full(17), r"17 groups have 2\^17 configurations, more than 65536"),
        (lambda: listed(["SS", "ST"]).index(Configuration.parse("TT")), "'TT' is not one of this space's 2"),
        (lambda: factorised((1,) * 70).index(Configuration.parse("TT")), f"not one of this space's {2**70}"),
    ],
)
def test_what_is_no_space(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_it_is_immutable() -> None:
    space = full(2)
    with pytest.raises(FrozenInstanceError):
        space.configurations = ()  # type: ignore[misc]
    assert hash(space) == hash(Space(space.configurations))
