from __future__ import annotations

from typing import Any

import pytest

from lasem.errors import ConfigError
from lasem.search import DARTS
from lasem.space import full, grouped


def test_spaces() -> None:
    assert DARTS().space(4, 1) == full(4)
    assert DARTS(groups=(2, 2)).space(4, 1) == grouped((2, 2))
    assert [str(c) for c in DARTS().space(3, 0)] == ["TTT"]
    assert [str(c) for c in DARTS(first_task="none", groups=(2, 1)).space(3, 0)] == ["SSS"]
    assert DARTS(first_task="search").space(3, 0) == full(3)
    with pytest.raises(
        ConfigError, match="add up to the network's 4 layers that can be transferred; got 3, 2, which is 5"
    ):
        DARTS(groups=(3, 2)).space(4, 1)
    with pytest.raises(ConfigError, match="'top-4' asks for 4 layers; the network has 3"):
        DARTS(first_task="top-4").space(3, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"order": "secnd"}, r"DARTS\.order must be one of first, second; got 'secnd'. Did you mean 'second'"),
        ({"alpha_split": "test"}, r"DARTS\.alpha_split must be one of valid, train"),
        ({"alpha_optimiser": "rmsprop"}, "Did you mean 'rmsprop-tf'"),
        ({"alpha_learning_rate": 0}, r"DARTS\.alpha_learning_rate must be above 0; got 0"),
        ({"alpha_weight_decay": -1}, r"DARTS\.alpha_weight_decay must be at least 0; got -1"),
        ({"xi": 0}, r"DARTS\.xi must be above 0; got 0"),
        ({"groups": (2, 0)}, r"DARTS\.groups must be at least 1; got 0"),
        ({"first_task": "searched"}, "Expected a configuration: all, none"),
    ],
)
def test_settings_are_checked(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DARTS(**change)


def test_step_sizes_may_follow_the_weights() -> None:
    assert DARTS(alpha_learning_rate=None, xi=None).alpha_learning_rate is None
