"""Mechanisms that make a layer's kernels, one by one, from what is shared and what a task owns of each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeVar, final

import torch
from torch import Tensor

from lasem.nets import AbstractBlock, Weights
from lasem.nets.initial import glorot_uniform
from lasem.sharing.abstract import AbstractSharing

Value = TypeVar("Value")


@final
@dataclass(frozen=True)
class Kernel:
    """One kernel of a block."""

    shape: tuple[int, ...]
    """(out, in) of a matrix, (out, in, ...) of a convolution."""
    pretrained: bool = False
    """Whether its start was learned elsewhere, so that nothing of it should be lost."""
    prefix: str = ""
    """Of the names of its parameters, where the block has several kernels or calls it another name than ``weight``."""


class AbstractKernelSharing(AbstractSharing):
    """Every kernel of a block (``AbstractBlock.kernels``) is made for itself.

    The rest of a block are biases, the scales and offsets of normalisation, and tokens and positions that are learned.
    """

    shares_rest: ClassVar[bool] = False
    """Whether all tasks share the rest as it is, or each owns its own."""

    @property
    def random_bias(self) -> bool:
        """Whether the bias of a plain layer starts Glorot-uniform, as the authors of LASEM have it beside a kernel that
        is made, and not as a plain layer's."""
        return False

    @abstractmethod
    def shared_kernel_shapes(self, kernel: Kernel) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter that all tasks share for a kernel."""

    @abstractmethod
    def task_kernel_shapes(self, kernel: Kernel) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter that a task owns for a kernel that it transfers."""

    @abstractmethod
    def initial_shared_kernel(self, kernel: Kernel, plain: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Fresh shared knowledge for a kernel that would start from ``plain`` if it were a plain one."""

    @abstractmethod
    def initial_task_kernel(
        self, kernel: Kernel, shared: Weights, plain: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """What a new task owns of a kernel at its start."""

    @abstractmethod
    def kernel(self, kernel: Kernel, shared: Weights, task: Weights) -> Tensor:
        """The kernel, differentiable in both arguments."""

    def kernel_penalty(self, kernel: Kernel, task: Weights) -> Tensor | None:
        """What a transferred kernel adds to the loss (a scalar), or None for nothing."""
        return None

    def shared_shapes(self, block: AbstractBlock) -> dict[str, tuple[int, ...]]:
        """Of every kernel."""
        shared = {
            kernel.prefix + name: shape
            for _, kernel in kernels_of(block)
            for name, shape in self.shared_kernel_shapes(kernel).items()
        }
        return shared | (_rest(block, block.shapes) if self.shares_rest else {})

    def task_shapes(self, block: AbstractBlock) -> dict[str, tuple[int, ...]]:
        """Of every kernel, and of the rest if it is the task's."""
        own = {
            kernel.prefix + name: shape
            for _, kernel in kernels_of(block)
            for name, shape in self.task_kernel_shapes(kernel).items()
        }
        return own | ({} if self.shares_rest else _rest(block, block.shapes))

    def initial_shared(self, block: AbstractBlock, plain: Weights, generator: torch.Generator) -> dict[str, Tensor]:
        """Of every kernel; the rest, if it is shared, as in a plain layer."""
        shared = {
            kernel.prefix + name: value
            for source, kernel in kernels_of(block)
            for name, value in self.initial_shared_kernel(kernel, plain[source], generator).items()
        }
        return shared | (_rest(block, plain) if self.shares_rest else {})

    def initial_task(
        self, block: AbstractBlock, shared: Weights, plain: Weights, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Of every kernel; the rest, if it is the task's, as in a plain layer."""
        own: dict[str, Tensor] = {} if self.shares_rest else _rest(block, plain)
        if self.random_bias and "bias" in own:
            size = len(own["bias"])
            own["bias"] = glorot_uniform((size,), size, size, generator)
        for source, kernel in kernels_of(block):
            start = self.initial_task_kernel(kernel, _of(kernel, shared), plain[source], generator)
            own |= {kernel.prefix + name: value for name, value in start.items()}
        return own

    def weights(self, block: AbstractBlock, shared: Weights, task: Weights) -> dict[str, Tensor]:
        """The kernels as they are made, and the rest."""
        made = {
            source: self.kernel(kernel, _of(kernel, shared), _of(kernel, task)) for source, kernel in kernels_of(block)
        }
        return made | _rest(block, shared if self.shares_rest else task)

    def penalty(self, block: AbstractBlock, task: Weights) -> Tensor | None:
        """Sum over the kernels."""
        total: Tensor | None = None
        for _, kernel in kernels_of(block):
            penalty = self.kernel_penalty(kernel, _of(kernel, task))
            if penalty is not None:
                total = penalty if total is None else total + penalty
        return total


def _rest(block: AbstractBlock, of: Mapping[str, Value]) -> dict[str, Value]:
    """What belongs to the weights of a block that are no kernels."""
    kernels = block.kernels
    return {name: of[name] for name in block.shapes if name not in kernels}


def kernels_of(block: AbstractBlock) -> Iterator[tuple[str, Kernel]]:
    """The kernels of a block by name."""
    shapes = block.shapes
    for name in block.kernels:
        yield name, Kernel(shapes[name], block.pretrained, "" if name == "weight" else f"{name}.")


def _of(kernel: Kernel, tensors: Weights) -> Weights:
    """A block's parameters, those of one kernel by their own names."""
    if not kernel.prefix:
        return tensors
    size = len(kernel.prefix)
    return {name[size:]: value for name, value in tensors.items() if name.startswith(kernel.prefix)}
