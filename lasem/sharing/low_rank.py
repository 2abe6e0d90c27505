"""Low-rank sharing: a layer that tasks share, and a change of low rank that a task owns of each of its kernels.

.. [Hu2022] E. J. Hu, Y. Shen, P. Wallis, Z. Allen-Zhu, Y. Li, S. Wang, L. Wang, W. Chen. LoRA: Low-Rank Adaptation of
   Large Language Models. ICLR 2022.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, final

import torch
from torch import Tensor

from lasem.nets import Weights
from lasem.settings import Range
from lasem.sharing.abstract import AbstractKernelSharing, Kernel

_DOWN, _UP = "change.down", "change.up"


@final
@dataclass(frozen=True, kw_only=True)
class LowRank(AbstractKernelSharing):
    """W = W_shared + scale * B A; W_shared is shared, B of shape (out, r) and A of shape (r, inputs) are the task's.

    A convolution's kernel is the matrix (out, in * height * width). The rest of a block, such as biases, is shared with
    it. A starts normal with variance 1 / inputs, B at 0: a task starts from the shared layer itself ([Hu2022]_ 4.1).
    """

    name: ClassVar[str] = "low-rank"
    shares_rest: ClassVar[bool] = True

    rank: Annotated[int, Range(least=1)] = 4
    """Rank of a task's change of a kernel's matrix, at most its smaller side; at least 1."""
    scale: Annotated[float, Range(above=0)] = 1.0
    """Factor on the change, alpha / r in [Hu2022]_; positive."""
    train_shared: bool = True
    """Whether shared weights are trained with every task that transfers them. If not, they always stay a pretrained
    module's, as in [Hu2022]_, and nothing that a task transfers can be forgotten."""
    factors_start: Literal["fresh", "latest"] = "fresh"
    """A new task's change starts at zero, or from the latest task that transferred the layer."""

    def shared_kernel_shapes(self, kernel: Kernel) -> dict[str, tuple[int, ...]]:
        return {"weight": kernel.shape}

    def task_kernel_shapes(self, kernel: Kernel) -> dict[str, tuple[int, ...]]:
        out, inputs = kernel.shape[0], math.prod(kernel.shape[1:])
        rank = min(self.rank, out, inputs)
        return {_DOWN: (rank, inputs), _UP: (out, rank)}

    def initial_shared_kernel(self, kernel: Kernel, plain: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return {"weight": plain}

    def initial_task_kernel(
        self, kernel: Kernel, shared: Weights, plain: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        down, up = self.task_kernel_shapes(kernel).values()
        return {_DOWN: torch.randn(down, generator=generator) / math.sqrt(down[1]), _UP: torch.zeros(up)}

    def kernel(self, kernel: Kernel, shared: Weights, task: Weights) -> Tensor:
        return shared["weight"] + self.scale * (task[_UP] @ task[_DOWN]).reshape(kernel.shape)

    def step(self, parameter: str) -> float:
        return 1.0 if self.train_shared or parameter.endswith((_DOWN, _UP)) else 0.0
