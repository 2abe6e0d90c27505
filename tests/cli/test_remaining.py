from __future__ import annotations

import pytest

from lasem.cli.progress import Remaining, duration


def test_nothing_is_known_before_the_second_epoch() -> None:
    remaining = Remaining()
    assert remaining.estimate(0, 10, 0) is None
    remaining.add(1, 100.0)  # warming up
    assert remaining.estimate(1, 10, 0) is None


def test_epochs_that_search_take_longer_in_later_tasks_too() -> None:
    remaining = Remaining()
    remaining.add(1, 100.0)
    for epoch, seconds in ((1, 8.0), (2, 8.0), (3, 1.0)):
        remaining.add(epoch, seconds)
    assert remaining.estimate(3, 4, 0) == 1
    assert remaining.estimate(3, 4, 2) == 1 + 2 * (8 + 8 + 1 + 1)
    remaining.add(4, 2.0)
    assert remaining.estimate(4, 4, 0) == 0


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (59.6, "1:00 min"), (125, "2:05 min"), (12000, "3:20 h")])
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
