from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lasem.errors import ConfigError
from lasem.space import Configuration, Pattern, alternating, bottom, top, transfer_all, transfer_none

BITS = st.lists(st.booleans(), min_size=1, max_size=20).map(tuple)


@given(BITS)
def test_text_and_back(bits: tuple[bool, ...]) -> None:
    configuration = Configuration(bits)
    assert Configuration.parse(str(configuration)) == configuration
    assert str(configuration) == "".join("T" if bit else "S" for bit in bits)
    assert (len(configuration), tuple(configuration)) == (len(bits), bits)
    assert configuration.num_transferred == sum(bits)
    assert [configuration[layer] for layer in range(len(bits))] == list(bits)
    assert hash(configuration) == hash(Configuration(bits))


@given(st.text(max_size=6))
def test_any_other_text_is_refused(text: str) -> None:
    if text and set(text) <= {"S", "T"}:
        assert str(Configuration.parse(text)) == text
    else:
        with pytest.raises(ConfigError, match="Expected a configuration such as 'STTS'"):
            Configuration.parse(text)


def test_it_is_immutable_and_its_bits_are_booleans() -> None:
    configuration = Configuration([1, 0])  # type: ignore[arg-type]
    assert configuration.bits == (True, False)
    assert all(isinstance(bit, bool) for bit in configuration)
    with pytest.raises(FrozenInstanceError):
        configuration.bits = (True,)  # type: ignore[misc]
    with pytest.raises(ConfigError, match="at least one layer"):
        Configuration(())


def test_task_specific_comes_before_transferred() -> None:
    texts = ["SS", "ST", "TS", "TT"]
    assert [str(c) for c in sorted(map(Configuration.parse, reversed(texts)))] == texts


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
def test_patterns_at_four_layers(pattern: Pattern, text: str, at_four: str) -> None:
    assert pattern == Pattern(text) == text
    assert str(pattern.of(4)) == at_four


@given(st.integers(1, 17), st.data())
def test_patterns_at_any_depth(depth: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, depth))
    assert [bit for bit in top(k).of(depth)] == [layer >= depth - k for layer in range(depth)]
    assert [bit for bit in bottom(k).of(depth)] == [layer < k for layer in range(depth)]
    assert [bit for bit in alternating().of(depth)] == [layer % 2 == 1 for layer in range(depth)]
    letters = "".join(data.draw(st.lists(st.sampled_from("ST"), min_size=depth, max_size=depth)))
    assert str(Pattern(letters).of(depth)) == letters


@pytest.mark.parametrize(
    "text", ["", "al", "top", "top-", "top--1", "top-1.5", "top-one", "middle-1", "SXT", "st", "all-1"]
)
def test_other_patterns_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"Expected a configuration: all, none, .*; got '{text}'"):
        Pattern(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alternate", "Did you mean 'alternating'"),
        ("botom-1", "Did you mean 'bottom-1'"),
        ("top-5", "'top-5' asks for 5 layers; the network has 4"),
        ("ST", "4 letters, one for each layer of the network; got 'ST' with 2"),
    ],
)
def test_a_pattern_that_does_not_fit_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Pattern(text).of(4)


def test_a_pattern_is_text_that_keeps_its_kind() -> None:
    assert isinstance(top(1), str)
    with pytest.raises(AttributeError):
        top(1).note = "x"  # type: ignore[attr-defined]
    assert pickle.loads(pickle.dumps(top(1))).of(2) == copy.deepcopy(top(1)).of(2) == top(1).of(2)
