import copy
import pickle
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lasem.errors import ConfigError
from lasem.space import (
    Configuration,
    Pattern,
    alternating,
    bottom,
    layers_in_words,
    top,
    transfer_all,
    transfer_none,
)

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


@given(st.integers(1, 17), st.data())
def test_patterns_at_any_depth(depth: int, data: st.DataObject) -> None:
    k, letters = data.draw(st.integers(0, depth)), "".join(data.draw(st.sampled_from("ST")) for _ in range(depth))
    for pattern, text, expected in (
        (transfer_all(), "all", "T" * depth),
        (transfer_none(), "none", "S" * depth),
        (alternating(), "alternating", ("ST" * depth)[:depth]),
        (top(k), f"top-{k}", "S" * (depth - k) + "T" * k),
        (bottom(k), f"bottom-{k}", "T" * k + "S" * (depth - k)),
        (Pattern(letters), letters, letters),
    ):
        assert pattern == Pattern(text) == text
        assert str(pattern.of(depth)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *(
            (text, f"Expected a configuration: all, none, .*; got '{text}'")
            for text in ("", "al", "top", "top-", "top--1", "top-1.5", "top-one", "middle-1", "SXT", "st", "all-1")
        ),
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


EFFICIENTNET = ("stem", *(f"blocks.{k}" for k in range(7)))


@pytest.mark.parametrize(
    ("configuration", "names", "said"),
    [
        ("TTTTTTSS", EFFICIENTNET, "stem, blocks.0 to blocks.4 transferred; blocks.5, blocks.6 its own"),
        ("SSTTSSSS", EFFICIENTNET, "blocks.1, blocks.2 transferred; stem, blocks.0, blocks.3 to blocks.6 its own"),
        ("TTTS", (), "layers 1 to 3 transferred; layer 4 its own"),
        ("TSTS", (), "layers 1, 3 transferred; layers 2, 4 its own"),
        ("TTTT", (), "layers 1 to 4 transferred"),
        ("S", (), "layer 1 its own"),
        ("TTT", ("a", "b", "c"), "a, b, c transferred"),
        ("", (), ""),
    ],
)
def test_layers_in_words(configuration: str, names: tuple[str, ...], said: str) -> None:
    assert layers_in_words(configuration, names) == said
