"""Hard parameter sharing (HPS): transferred layers use the shared weights as they are."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from lasem.nets import AbstractBlock, Weights
from lasem.sharing.abstract import AbstractSharing


@final
@dataclass(frozen=True, kw_only=True)
class HardSharing(AbstractSharing):
    """W = W_shared; a task owns nothing of a layer that it transfers."""

    name: ClassVar[str] = "hps"

    train_shared: bool = True
    """Whether shared weights are trained with every task that transfers them. If not, a transferred layer is always a
    pretrained module's own, and nothing that a task transfers can be forgotten."""

    def step(self, parameter: str) -> float:
        return 1.0 if self.train_shared else 0.0

    def shared_shapes(self, block: AbstractBlock) -> dict[str, tuple[int, ...]]:
        return block.shapes if self.train_shared or not self.keeps(block) else {}

    def task_shapes(self, block: AbstractBlock) -> dict[str, tuple[int, ...]]:
        return {}

    def initial_shared(self, block: AbstractBlock, plain: Weights, generator: torch.Generator) -> dict[str, Tensor]:
        return {} if self.keeps(block) else dict(plain)

    def initial_task(
        self, block: AbstractBlock, shared: Weights, plain: Weights, generator: torch.Generator
    ) -> dict[str, Tensor]:
        return {}

    def weights(self, block: AbstractBlock, shared: Weights, task: Weights) -> dict[str, Tensor]:
        return dict(shared)
