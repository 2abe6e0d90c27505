"""Random search: a few configurations are drawn and trained.

.. [Bergstra2012] J. Bergstra, Y. Bengio. Random Search for Hyper-Parameter Optimization. JMLR 13, 2012.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch

from lasem.errors import check_range
from lasem.search.trials import AbstractTrials
from lasem.space import Space


@final
@dataclass(frozen=True, kw_only=True)
class RandomSearch(AbstractTrials):
    """Trains some configurations, drawn anew for each task, and keeps the best one ([Bergstra2012]_)."""

    name: ClassVar[str] = "random"

    num_candidates: int = 5
    """Different configurations to train for each task, if there are as many; at least 1. The default is what
    ``prefix`` takes for four layers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("RandomSearch.num_candidates", self.num_candidates, least=1)

    def propose(self, space: Space, tried: Mapping[int, float], generator: torch.Generator) -> tuple[int, ...]:
        """All that are trained at once: every set of that many is equally probable."""
        if tried:
            return ()
        return tuple(torch.randperm(len(space), generator=generator)[: self.num_candidates].tolist())
