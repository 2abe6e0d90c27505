import pytest

from lasem.metrics import statistic
from lasem.report.numbers import count, display_name, duration, method_name, percent, plus_minus, ratio, short_count

NAN = float("nan")


def test_accuracies_are_percent_with_one_decimal() -> None:
    assert [percent(x) for x in (0.62345, 1.0, -0.007, -0.0001, NAN)] == ["62.3", "100.0", "−0.7", "0.0", "–"]


def test_ratios_and_counts() -> None:
    assert [ratio(0.97342), ratio(NAN)] == ["0.973", "–"]
    assert [count(1234567), count(NAN)] == ["1,234,567", "–"]


@pytest.mark.parametrize(
    ("value", "written"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (48_000, "48.0 k"), (999_600, "1.00 M"), (1_234_567, "1.23 M")],
)
def test_short_counts_have_three_figures(value: float, written: str) -> None:
    assert short_count(value) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0.0, "0.0 s"), (23.44, "23.4 s"), (59.97, "1 min 0 s"), (192.0, "3 min 12 s"), (3723.4, "1 h 2 min"), (NAN, "–")],
)
def test_durations(seconds: float, written: str) -> None:
    assert duration(seconds) == written


def test_a_deviation_stands_only_where_there_is_one() -> None:
    assert plus_minus(statistic([0.5]), percent) == "50.0"
    assert plus_minus(statistic([0.5, 0.6]), percent) == "55.0 ± 7.1"


def test_names_are_cut_and_cannot_break_a_line() -> None:
    assert display_name("a\nb\x00\ud800") == "a\ufffdb\ufffd\ufffd"
    assert display_name("long name", 5) == "long…"


@pytest.mark.parametrize(
    ("label", "read"),
    [("none", "single-task"), ("all-low-rank", "transfer-all-low-rank"), ("lasem", "lasem"), ("nonesuch", "nonesuch")],
)
def test_methods_have_names_that_read_as_words(label: str, read: str) -> None:
    assert method_name(label) == read
