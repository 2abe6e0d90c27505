"""Prefix search: the layers nearest the input transfer, and how many of them is tried out.

.. [Veniat2021] T. Veniat, L. Denoyer, M. Ranzato. Efficient Continual Learning with Modular Networks and Task-Driven
   Priors. ICLR 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar, final

import torch

from lasem.search.trials import AbstractTrials
from lasem.space import Space, bottom, listed


@final
@dataclass(frozen=True, kw_only=True)
class PrefixSearch(AbstractTrials):
    """Trains d + 1 candidates, in the manner of MNTDP: transfer the first k layers and learn the others, k = 0 ... d.

    As in [Veniat2021]_, a task takes a prefix over and the validation images say how long it is, so that candidates
    grow with the depth and not exponentially. Three things differ, for here tasks share one set of knowledge and not a
    library of modules: the prefix is of that knowledge and not of the best previous task, which MNTDP finds by nearest
    neighbours on its features; what is transferred goes on learning, where MNTDP freezes it; and the layers behind it
    start as ``TrainingConfig.specific_start`` says, where MNTDP's are new.
    """

    name: ClassVar[str] = "prefix"

    def choices(self, groups: tuple[int, ...]) -> Space:
        """From none to all, a group longer each time."""
        return listed(bottom(k).of(sum(groups)) for k in accumulate(groups, initial=0))

    def propose(self, space: Space, tried: Mapping[int, float], generator: torch.Generator) -> tuple[int, ...]:
        """All of them at once, the shortest prefix first."""
        return () if tried else tuple(range(len(space)))
