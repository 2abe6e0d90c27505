from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lasem import errors
from lasem.errors import ConfigError, LasemError, check_choice, check_range, nearest


def test_every_error_is_a_lasem_error() -> None:
    kinds = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(kinds) == 8
    assert all(issubclass(kind, LasemError) for kind in kinds)


def test_nearest_names_the_closest_or_nothing() -> None:
    assert nearest("cifr-1", ["cifar-1", "stl-1"]) == " Did you mean 'cifar-1'?"
    assert nearest("xyz", ["cifar-1", "stl-1"]) == ""
    assert nearest("anything", []) == ""


def test_a_choice_outside_names_all_and_the_nearest() -> None:
    check_choice("colour", "red", ("red", "blue"))
    with pytest.raises(ConfigError, match=r"^colour must be one of red, blue; got 'bleu'\. Did you mean 'blue'\?$"):
        check_choice("colour", "bleu", iter(("red", "blue")))


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        (0, {"least": 1}, r"^size must be at least 1; got 0\.$"),
        (0, {"above": 0}, r"^size must be above 0; got 0\.$"),
        (1.5, {"least": 0, "most": 1}, r"^size must be at least 0 and at most 1; got 1\.5\.$"),
        (1, {"least": 0, "below": 1}, r"^size must be at least 0 and below 1; got 1\.$"),
        (math.nan, {}, r"^size must be finite; got nan\.$"),
        (-math.inf, {"most": 3}, r"^size must be at most 3; got -inf\.$"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_bounds(value: float, bounds: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_range("size", value, **bounds)


@given(st.floats(), st.floats(-5, 5), st.floats(-5, 5))
def test_the_range_is_the_one_of_the_comparisons(value: float, low: float, high: float) -> None:
    cases = [
        ({"least": low, "most": high}, low <= value <= high),
        ({"above": low, "below": high}, low < value < high),
    ]
    for bounds, inside in cases:
        if inside:
            check_range("x", value, **bounds)
        else:
            with pytest.raises(ConfigError, match="x must be"):
                check_range("x", value, **bounds)
