from __future__ import annotations

from typing import Any, Literal

import pytest

from lasem.errors import ConfigError
from lasem.settings import kind, read_value


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        ("3", int, 3),
        (3, int, 3),
        ("1e-3", float, 1e-3),
        (2, float, 2.0),
        ("True", bool, True),
        ("no", bool, False),
        ("none", int | None, None),
        (None, int | None, None),
        ("7", int | None, 7),
        ("none", Literal["none", "split"], "none"),
        ("3", Literal[1, 3], 3),
        ("0, 1,2", tuple[int, ...], (0, 1, 2)),
        ("", tuple[int, ...], ()),
        (5, tuple[int, ...], (5,)),
        ([5, 6], tuple[int, ...] | None, (5, 6)),
        ("none", str, "none"),
    ],
)
def test_values_that_are_read(value: Any, annotation: Any, expected: Any) -> None:
    read = read_value(value, annotation, "x")
    assert read == expected
    assert type(read) is type(expected)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        ("3.5", int),
        (3.5, int),
        (True, int),
        (None, int),
        ("x", float),
        (True, float),
        (10**400, float),
        (1, bool),
        ("maybe", bool),
        (3, str),
        ("z", Literal["a"]),
        ("1,,2", tuple[int, ...]),
        ({}, tuple[int, ...]),
    ],
)
def test_values_that_are_refused(value: Any, annotation: Any) -> None:
    with pytest.raises(ConfigError, match=r"where"):
        read_value(value, annotation, "where")


def test_kinds() -> None:
    assert [kind(a) for a in (int, float | None, bool, str, Literal[1, 3], tuple[int, ...] | None)] == [
        "N",
        "NUMBER",
        "{true,false}",
        "TEXT",
        "{1,3}",
        "N,N,...",
    ]
