from __future__ import annotations

import pytest
import torch

from lasem.errors import ConfigError
from lasem.search import Fixed
from lasem.space import top


def test_one_configuration_for_every_task() -> None:
    for index in range(3):
        assert [str(c) for c in Fixed(top(1)).space(3, index)] == ["SST"]
        assert [str(c) for c in Fixed().space(3, index)] == ["TTT"]
    assert Fixed(top(1)) == Fixed("top-1")


def test_it_is_certain_from_the_start() -> None:
    search = Fixed("none")
    state = search.init(1)
    weights, after = search.step(state, torch.tensor([[-1.0, -5.0]]))
    assert search.prior(state).tolist() == weights.tolist() == [1.0]
    assert after is state is search.advance(state, 1, 2)
    assert (search.best(state), search.candidates(state, 1)) == (0, (0,))


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'all'"):
        Fixed("al")
    with pytest.raises(ConfigError, match="2 letters, one for each layer of the network; got 'STT' with 3"):
        Fixed("STT").space(2, 0)
