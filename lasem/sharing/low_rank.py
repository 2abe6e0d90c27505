"""Low-rank sharing: tasks share a layer, and each owns a change of low rank for every one of its kernels.

.. [Hu2022] E. J. Hu, Y. Shen, P. Wallis, Z. Allen-Zhu, Y. Li, S. Wang, L. Wang, W. Chen. LoRA: Low-Rank Adaptation of
   Large Language Models. ICLR 2022.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from lasem.errors import check_choice, check_range
from lasem.nets import AbstractBlock, Weights
from lasem.sharing.abstract import check_trained
from lasem.sharing.by_kernel import AbstractKernelSharing, Kernel

_DOWN, _UP = "change.down", "change.up"


@final
@dataclass(frozen=True, kw_only=True)
class LowRank(AbstractKernelSharing):
    """W = W_shared + scale * B A; W_shared is shared, B of shape (out, r) and A of shape (r, inputs) are the task's.

    A convolution's kernel is the matrix (out, in * height * width). What is no kernel, such as biases and the scales of
    normalisation, is shared with it. B starts at 0, so that a task starts from the shared layer itself ([Hu2022]_ 4.1).
    """

    name: ClassVar[str] = "low-rank"
    shares_rest: ClassVar[bool] = True

    rank: int = 4
    """Rank of a task's change of a kernel's matrix, at most its smaller side; at least 1."""
    scale: float = 1.0
    """Factor on the change, alpha / r in [Hu2022]_; positive."""
    train_shared: bool = True
    """Whether shared weights are trained with every task that transfers them. If not, they stay a pretrained module's
    for ever, as in [Hu2022]_, and nothing that a task transfers can be forgotten."""
    factors_start: Literal["fresh", "latest"] = "fresh"
    """A new task's change starts at zero, or from the latest task that transferred the layer."""

    def __post_init__(self) -> None:
        check_range("LowRank.rank", self.rank, least=1)
        check_range("LowRank.scale", self.scale, above=0)
        check_choice("LowRank.factors_start", self.factors_start, ("fresh", "latest"))

    def shared_kernel_shapes(self, kernel: Kernel) -> dict[str, tuple[int, ...]]:
        """``weight``, the kernel itself."""
        return {"weight": kernel.shape}

    def task_kernel_shapes(self, kernel: Kernel) -> dict[str, tuple[int, ...]]:
        """``change.down`` A of shape (r, inputs) and ``change.up`` B of shape (out, r)."""
        out, inputs = kernel.shape[0], math.prod(kernel.shape[1:])
        rank = min(self.rank, out, inputs)
        return {_DOWN: (rank, inputs), _UP: (out, rank)}

    def initial_shared_kernel(self, kernel: Kernel, plain: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The plain kernel."""
        return {"weight": plain}

    def initial_task_kernel(
        self, kernel: Kernel, shared: Weights, plain: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """A normal with variance 1 / inputs, B = 0."""
        shapes = self.task_kernel_shapes(kernel)
        down = torch.randn(shapes[_DOWN], generator=generator) / math.sqrt(shapes[_DOWN][1])
        return {_DOWN: down, _UP: torch.zeros(shapes[_UP])}

    def kernel(self, kernel: Kernel, shared: Weights, task: Weights) -> Tensor:
        """The sum."""
        change = (task[_UP] @ task[_DOWN]).reshape(kernel.shape)
        return shared["weight"] + self.scale * change

    def check(self, block: AbstractBlock) -> None:
        """Raise ConfigError if shared weights are not to be trained and nobody trained them before."""
        check_trained("LowRank", self.train_shared, block.pretrained)

    def step(self, parameter: str) -> float:
        """Shared weights move as plain ones do, or not at all; the change as plain ones do."""
        return 1.0 if self.train_shared or parameter.endswith((_DOWN, _UP)) else 0.0
