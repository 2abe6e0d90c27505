"""Hard parameter sharing (HPS): a transferred layer uses the shared weights as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from lasem.nets import AbstractBlock, Weights
from lasem.sharing.abstract import AbstractSharing, check_trained


@final
@dataclass(frozen=True, kw_only=True)
class HardSharing(AbstractSharing):
    """W = W_shared; a task owns nothing of a layer that it transfers."""

    name: ClassVar[str] = "hps"

    train_shared: bool = True
    """Whether shared weights are trained with every task that transfers them. If not, a transferred layer is a
    pretrained module's own for ever, and nothing that a task transfers can be forgotten."""

    def check(self, block: AbstractBlock) -> None:
        """Raise ConfigError if shared weights are not to be trained and nobody trained them before."""
        check_trained("HardSharing", self.train_shared, block.pretrained)

    def step(self, parameter: str) -> float:
        """As plain weights, or not at all."""
        return 1.0 if self.train_shared else 0.0

    def shared_shapes(self, block: AbstractBlock) -> dict[str, tuple[int, ...]]:
        """All of the layer's weights."""
        return block.shapes

    def task_shapes(self, block: AbstractBlock) -> dict[str, tuple[int, ...]]:
        """Nothing."""
        return {}

    def initial_shared(self, block: AbstractBlock, plain: Weights, generator: torch.Generator) -> dict[str, Tensor]:
        """Plain weights."""
        return dict(plain)

    def initial_task(
        self, block: AbstractBlock, shared: Weights, plain: Weights, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def weights(self, block: AbstractBlock, shared: Weights, task: Weights) -> dict[str, Tensor]:
        """The shared weights themselves."""
        return dict(shared)
