from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lasem.errors import ConfigError
from lasem.space import Pattern, alternating, bottom, top, transfer_all, transfer_none


@pytest.mark.parametrize(
    ("pattern", "text", "at_four"),
    [
        (transfer_all(), "all", "TTTT"),
        (transfer_none(), "none", "SSSS"),
        (alternating(), "alternating", "STST"),
        (top(0), "top-0", "SSSS"),
        (top(1), "top-1", "SSST"),
        (top(4), "top-4", "TTTT"),
        (bottom(0), "bottom-0", "SSSS"),
        (bottom(2), "bottom-2", "TTSS"),
        (Pattern("STTS"), "STTS", "STTS"),
    ],
)
def test_names_at_four_layers(pattern: Pattern, text: str, at_four: str) -> None:
    assert pattern == Pattern(text) == text
    assert str(pattern.of(4)) == at_four


@given(st.integers(1, 17), st.data())
def test_names_at_any_depth(depth: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, depth))
    assert [bit for bit in top(k).of(depth)] == [layer >= depth - k for layer in range(depth)]
    assert [bit for bit in bottom(k).of(depth)] == [layer < k for layer in range(depth)]
    assert [bit for bit in alternating().of(depth)] == [layer % 2 == 1 for layer in range(depth)]
    letters = "".join(data.draw(st.lists(st.sampled_from("ST"), min_size=depth, max_size=depth)))
    assert str(Pattern(letters).of(depth)) == letters


@pytest.mark.parametrize(
    "text", ["", "al", "top", "top-", "top--1", "top-1.5", "top-one", "middle-1", "SXT", "st", "all-1"]
)
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"Expected a configuration: all, none, .*; got '{text}'"):
        Pattern(text)


def test_the_nearest_name_is_given() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'alternating'"):
        Pattern("alternate")
    with pytest.raises(ConfigError, match="Did you mean 'bottom-1'"):
        Pattern("botom-1")


def test_a_pattern_that_does_not_fit_the_depth() -> None:
    with pytest.raises(ConfigError, match="'top-5' asks for 5 layers; the network has 4"):
        top(5).of(4)
    with pytest.raises(ConfigError, match="4 letters, one for each layer of the network; got 'ST' with 2"):
        Pattern("ST").of(4)


def test_it_is_text_that_keeps_its_kind() -> None:
    assert isinstance(top(1), str)
    with pytest.raises(AttributeError):
        top(1).note = "x"  # type: ignore[attr-defined]
    assert pickle.loads(pickle.dumps(top(1))).of(2) == copy.deepcopy(top(1)).of(2) == top(1).of(2)
