from __future__ import annotations

import pytest
import torch

from lasem.data import child_generator
from lasem.errors import ConfigError


def test_a_path_gives_the_same_numbers_again_and_another_path_others() -> None:
    draws = [
        torch.rand(3, generator=child_generator(*path)).tolist() for path in [(0, 1), (0, 1), (0, 2), (1, 1), (0,)]
    ]
    assert draws[0] == draws[1]
    assert len({tuple(draw) for draw in draws}) == 4


@pytest.mark.parametrize("seed", [-1, 1.5, True, "0"])
def test_a_seed_is_a_natural_number(seed: int) -> None:
    with pytest.raises(ConfigError, match="seed must be an integer of at least 0; got"):
        child_generator(seed)
