from collections.abc import Callable
from typing import Any

import pytest

from lasem.metrics import PairedDifference, statistic
from lasem.report.numbers import (
    count,
    display_name,
    duration,
    in_words,
    method_name,
    percent,
    plus_minus,
    ratio,
    short_count,
)

NAN = float("nan")
DIFFERENCE = PairedDifference(mean=0.008, p_value=0.0312, num_pairs=6, num_seeds=2, num_seeds_above=1)


@pytest.mark.parametrize(
    ("write", "values", "written"),
    [
        (percent, (0.62345, 1.0, -0.007, -0.0001, NAN), "62.3 | 100.0 | −0.7 | 0.0 | –"),
        (ratio, (0.97342, NAN), "0.973 | –"),
        (count, (1234567, NAN), "1,234,567 | –"),
        (short_count, (0, 999, 1000, 48_000, 999_600, 1_234_567), "0 | 999 | 1.00 k | 48.0 k | 1.00 M | 1.23 M"),
        (duration, (0.0, 23.44, 59.97, 192.0, 3723.4), "0.0 s | 23.4 s | 1 min 0 s | 3 min 12 s | 1 h 2 min"),
        (lambda of: plus_minus(statistic(of), percent), ([0.5], [0.5, 0.6]), "50.0 | 55.0 ± 7.1"),
        (in_words, (DIFFERENCE,), "+0.8 points (p 0.031)"),
        (display_name, ("a\nb\x00\ud800",), "a\\nb\\x00\\ud800"),
        (lambda name: display_name(name, 5), ("long name",), "long…"),
        (method_name, ("none", "all-low-rank", "nonesuch"), "single-task | transfer-all-low-rank | nonesuch"),
    ],
)
def test_numbers_and_names_as_people_read_them(write: Callable[[Any], str], values: Any, written: str) -> None:
    assert " | ".join(map(write, values)) == written
