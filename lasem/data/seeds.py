"""Independent random generators from one seed, so that no draw depends on how many others were made before it."""

from __future__ import annotations

import numpy as np
import torch

from lasem.errors import ConfigError


def child_generator(seed: int, *path: int) -> torch.Generator:
    """Give the generator that belongs to ``path`` (say: purpose, task index) below ``seed``.

    Raises:
        ConfigError: if ``seed`` is not an integer of at least 0.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ConfigError(f"A seed must be an integer of at least 0; got {seed!r}.")
    state = np.random.SeedSequence(entropy=seed, spawn_key=path).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))
