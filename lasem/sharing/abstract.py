"""Sharing mechanisms in general, and those that make a layer's kernels one by one."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar, final

import torch
from torch import Tensor

from lasem.errors import ConfigError
from lasem.nets import AbstractBlock, AbstractNet, Weights
from lasem.nets.block import glorot_uniform
from lasem.settings import Settings

Value = TypeVar("Value")


class AbstractSharing(Settings, ABC):
    """Parameters that all tasks share, parameters that one task owns, and a pure function from both to weights.

    A layer that is not transferred has plain weights of its own (``AbstractBlock.initial``), whatever the mechanism.
    Objects hold settings only.
    """

    name: ClassVar[str]
    """How the command line and saved files call the mechanism."""
    factors_start: Literal["fresh", "latest"] = "fresh"
    """Start of a task's part of a transferred layer: ``initial_task``, or the values of the latest task that
    transferred the layer."""
    prior_start: ClassVar[tuple[float, float] | None] = None
    """Prior probability that the first and that the last layer is transferred by this mechanism, before a search has
    seen any image (``EM.prior_start``); None: the search's own for all mechanisms."""
    step_scale: float = 1.0
    """Step size of shared knowledge and of a task's part of it, relative to plain weights'. Where a kernel is a product
    of parameters, one step of all of them moves it several times further than a step of a plain kernel does."""
    train_shared: bool = True
    """Whether shared knowledge is trained, or stays a pretrained module's."""

    def check(self, block: AbstractBlock) -> None:
        """Raise ConfigError if the mechanism cannot serve this layer, as where shared weights would stay random."""
        if not self.train_shared and not block.pretrained:
            raise ConfigError(
                f"{type(self).__name__}.train_shared=False keeps shared weights as they start, which here is at "
                f"random. Learn with a pretrained module (lasem.nets.cut), or set train_shared to True."
            )

    def step(self, parameter: str) -> float:
        """Return the step size of one of ``shared_shapes`` or ``task_shapes``, relative to plain weights'."""
        return self.step_scale

    @abstractmethod
    def shared_shapes(self, block: AbstractBlock) -> dict[str, tuple[int, ...]]:
        """Return the shape of every parameter that all tasks share for this layer."""

    @abstractmethod
    def task_shapes(self, block: AbstractBlock) -> dict[str, tuple[int, ...]]:
        """Return the shape of every parameter that a task owns for this layer if it transfers the layer."""

    def keeps(self, block: AbstractBlock | AbstractNet) -> bool:
        """Return whether tasks share a pretrained block's (or all blocks') own weights for good.

        Then no model holds them.
        """
        return block.pretrained and not self.train_shared

    @abstractmethod
    def initial_shared(self, block: AbstractBlock, plain: Weights, generator: torch.Generator) -> dict[str, Tensor]:
        """Make fresh shared knowledge on the CPU, shaped as ``shared_shapes`` says.

        ``plain`` is the layer's start if it had plain weights. A mechanism that can start there should, because methods
        are compared on equal starts.
        """

    @abstractmethod
    def initial_task(
        self, block: AbstractBlock, shared: Weights, plain: Weights, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Make a new task's part at its start, on the CPU, shaped as ``task_shapes`` says.

        ``shared`` is the knowledge that is there already, on the CPU; it is only read.
        """

    def blend_with_fresh(
        self, block: AbstractBlock, shared: Weights, task: Weights, fresh: Weights, keep: float
    ) -> dict[str, Tensor]:
        """Move a task's part that was taken over from another task part of the way to a fresh one; here: leave it.

        Where tasks own nearly all of a layer there is the same reason for it as with plain weights, which become
        ``keep`` w + sqrt(1 - ``keep``^2) w', w' being ``fresh`` (``TrainingConfig.specific_shrink``).
        """
        return dict(task)

    @abstractmethod
    def weights(self, block: AbstractBlock, shared: Weights, task: Weights) -> dict[str, Tensor]:
        """Compute the layer's weights, shaped as ``block.shapes`` says, differentiable in both arguments."""

    def penalty(self, block: AbstractBlock, task: Weights) -> Tensor | None:
        """Compute the scalar that a transferred layer adds to the loss, or None for nothing."""
        return None

    def num_shared(self, block: AbstractBlock) -> int:
        """Count the numbers that all tasks share for this layer, once."""
        return sum(math.prod(shape) for shape in self.shared_shapes(block).values())

    def num_owned(self, block: AbstractBlock, *, transferred: bool) -> int:
        """Count the numbers that a task owns for this layer."""
        shapes = self.task_shapes(block) if transferred else block.shapes
        return sum(math.prod(shape) for shape in shapes.values())


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
    """A mechanism that makes every kernel of a block (``AbstractBlock.kernels``) by itself.

    The rest of a block are biases, the scales and offsets of normalisation, and tokens and positions that are learned.
    """

    shares_rest: ClassVar[bool] = False
    """Whether all tasks share the rest as it is, or each owns its own."""

    @property
    def random_bias(self) -> bool:
        """Whether the bias next to a kernel that is made starts Glorot-uniform, as in the authors' program."""
        return False

    @abstractmethod
    def shared_kernel_shapes(self, kernel: Kernel) -> dict[str, tuple[int, ...]]:
        """Return the shape of every parameter that all tasks share for a kernel."""

    @abstractmethod
    def task_kernel_shapes(self, kernel: Kernel) -> dict[str, tuple[int, ...]]:
        """Return the shape of every parameter that a task owns for a kernel that it transfers."""

    @abstractmethod
    def initial_shared_kernel(self, kernel: Kernel, plain: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Make fresh shared knowledge for a kernel that would start from ``plain`` if it were a plain one."""

    @abstractmethod
    def initial_task_kernel(
        self, kernel: Kernel, shared: Weights, plain: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Make a new task's part of a kernel at its start."""

    @abstractmethod
    def kernel(self, kernel: Kernel, shared: Weights, task: Weights) -> Tensor:
        """Compute the kernel, differentiable in both arguments."""

    def kernel_penalty(self, kernel: Kernel, task: Weights) -> Tensor | None:
        """Compute the scalar that a transferred kernel adds to the loss, or None for nothing."""
        return None

    def shared_shapes(self, block: AbstractBlock) -> dict[str, tuple[int, ...]]:
        if self.keeps(block):
            return {}
        shared = _by_kernel(block, lambda _, kernel: self.shared_kernel_shapes(kernel))
        return shared | (_rest(block, block.shapes) if self.shares_rest else {})

    def task_shapes(self, block: AbstractBlock) -> dict[str, tuple[int, ...]]:
        own = _by_kernel(block, lambda _, kernel: self.task_kernel_shapes(kernel))
        return own | ({} if self.shares_rest else _rest(block, block.shapes))

    def initial_shared(self, block: AbstractBlock, plain: Weights, generator: torch.Generator) -> dict[str, Tensor]:
        return {} if self.keeps(block) else self._initial_shared(block, plain, generator)

    def _initial_shared(self, block: AbstractBlock, plain: Weights, generator: torch.Generator) -> dict[str, Tensor]:
        shared = _by_kernel(block, lambda source, kernel: self.initial_shared_kernel(kernel, plain[source], generator))
        return shared | (_rest(block, plain) if self.shares_rest else {})

    def initial_task(
        self, block: AbstractBlock, shared: Weights, plain: Weights, generator: torch.Generator
    ) -> dict[str, Tensor]:
        def start(source: str, kernel: Kernel) -> dict[str, Tensor]:
            return self.initial_task_kernel(kernel, _of(kernel, shared), plain[source], generator)

        own: dict[str, Tensor] = {} if self.shares_rest else _rest(block, plain)
        if self.random_bias and "bias" in own:
            size = len(own["bias"])
            own["bias"] = glorot_uniform((size,), size, size, generator)
        return own | _by_kernel(block, start)

    def weights(self, block: AbstractBlock, shared: Weights, task: Weights) -> dict[str, Tensor]:
        if self.keeps(block):
            shared = self._initial_shared(block, block.held(next(iter(task.values()))), torch.Generator())
        kernels = {name: self.kernel(of, _of(of, shared), _of(of, task)) for name, of in kernels_of(block)}
        return kernels | _rest(block, shared if self.shares_rest else task)

    def penalty(self, block: AbstractBlock, task: Weights) -> Tensor | None:
        penalties = [self.kernel_penalty(kernel, _of(kernel, task)) for _, kernel in kernels_of(block)]
        counted = [penalty for penalty in penalties if penalty is not None]
        return sum(counted[1:], start=counted[0]) if counted else None


def _rest(block: AbstractBlock, of: Mapping[str, Value]) -> dict[str, Value]:
    """Select the entries of a block's weights that are no kernels."""
    kernels = block.kernels
    return {name: of[name] for name in block.shapes if name not in kernels}


def _by_kernel(block: AbstractBlock, of_kernel: Callable[[str, Kernel], Mapping[str, Value]]) -> dict[str, Value]:
    """Join the results for all kernels of a block, with the kernels' prefixes."""
    return {
        kernel.prefix + name: value
        for source, kernel in kernels_of(block)
        for name, value in of_kernel(source, kernel).items()
    }


def kernels_of(block: AbstractBlock) -> Iterator[tuple[str, Kernel]]:
    """Yield the kernels of a block by name."""
    shapes = block.shapes
    for name in block.kernels:
        yield name, Kernel(shapes[name], block.pretrained, "" if name == "weight" else f"{name}.")


def _of(kernel: Kernel, tensors: Weights) -> Weights:
    """Select a block's parameters of one kernel, by their own names."""
    prefix = kernel.prefix
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
