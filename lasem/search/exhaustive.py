"""Brute force: every configuration is trained.

.. [Lee2021] S. Lee, S. Behpour, E. Eaton. Sharing Less is More: Lifelong Learning in Deep Networks with Selective Layer
   Transfer. ICML 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch

from lasem.search.trials import AbstractTrials
from lasem.space import Space


@final
@dataclass(frozen=True, kw_only=True)
class Exhaustive(AbstractTrials):
    """Trains all 2^d configurations and keeps the best one: what [Lee2021]_ measures LASEM against.

    It is the best choice for one task at a time, as the validation images see it; not the best sequence of choices,
    which would take 2^(dT) for T tasks.
    """

    name: ClassVar[str] = "exhaustive"

    def propose(self, space: Space, tried: Mapping[int, float], generator: torch.Generator) -> tuple[int, ...]:
        """All of them at once, in order."""
        return () if tried else tuple(range(len(space)))
