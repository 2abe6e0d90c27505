"""What holds shared knowledge while a new task is learned, because earlier tasks answer with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from lasem.sharing import AbstractSharing
from lasem.training.phase import Named
from lasem.training.quadratic import Quadratic
from lasem.training.weights import step_of


@final
@dataclass(frozen=True)
class SharedProtection:
    """Shared knowledge that is only read, or pulled back to where earlier tasks need it; by default neither."""

    read_only: frozenset[int] = frozenset()
    """Layers, counted from 0, whose shared knowledge does not change."""
    quadratic: Quadratic | None = None
    """Over flat names as in ``TaskWeights.named``."""
    strength: float = 0.0
    """Half of it times the quadratic is added to the loss."""

    def scale(self, sharing: AbstractSharing, name: str) -> float:
        """Step size of one of ``TaskWeights.named``, relative to plain weights'."""
        parts = name.split(".", 3)
        if parts[0] == "layer" and parts[2] == "shared" and int(parts[1]) in self.read_only:
            return 0.0
        return step_of(sharing, name)

    def penalty(self, weights: Named) -> Tensor | None:
        """What is added to the loss, a scalar; None for nothing."""
        return None if self.quadratic is None else self.strength / 2 * self.quadratic.value(weights)
