from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lasem.errors import ConfigError
from lasem.space import Configuration

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
    configuration = Configuration((1, 0))  # type: ignore[arg-type]
    assert configuration.bits == (True, False)
    assert all(isinstance(bit, bool) for bit in configuration)
    assert Configuration([True]).bits == (True,)  # type: ignore[arg-type]
    with pytest.raises(FrozenInstanceError):
        configuration.bits = (True,)  # type: ignore[misc]


def test_it_needs_a_layer() -> None:
    with pytest.raises(ConfigError, match="at least one layer"):
        Configuration(())
    with pytest.raises(ConfigError, match="got ''"):
        Configuration.parse("")


def test_task_specific_comes_before_transferred() -> None:
    texts = ["SS", "ST", "TS", "TT"]
    assert [str(c) for c in sorted(map(Configuration.parse, reversed(texts)))] == texts
