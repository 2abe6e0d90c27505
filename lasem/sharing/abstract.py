"""A sharing mechanism: how shared knowledge becomes one task's weights for a layer."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lasem.errors import ConfigError
from lasem.nets import AbstractBlock, Weights


class AbstractSharing(ABC):
    """Parameters that all tasks share, parameters that one task owns, and a pure function from both to weights.

    A layer that is not transferred has plain weights of its own (``AbstractBlock.initial``), whatever the mechanism.
    Objects hold settings only.
    """

    name: ClassVar[str]
    """How the command line and saved files call the mechanism."""
    factors_start: Literal["fresh", "latest"] = "fresh"
    """How a task's part of a transferred layer starts: as ``initial_task`` says, or from the values of the latest task
    that transferred the layer."""
    prior_start: ClassVar[tuple[float, float] | None] = None
    """How probable it is, before a search has seen any image, that the first and that the last layer is transferred by
    this mechanism (``EM.prior_start``); none: as the search has it for all mechanisms."""
    step_scale: float = 1.0
    """Step size of shared knowledge and of a task's part of it, relative to plain weights'. Where a kernel is a product
    of parameters, one step of all of them moves it several times further than a step of a plain kernel does."""

    def check(self, block: AbstractBlock) -> None:  # noqa: B027
        """Raise ConfigError if the mechanism cannot serve this layer as it is set. Here: it can."""

    def step(self, parameter: str) -> float:
        """Step size of one of ``shared_shapes`` or ``task_shapes``, relative to plain weights'."""
        return self.step_scale

    @abstractmethod
    def shared_shapes(self, block: AbstractBlock) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter that all tasks share for this layer."""

    @abstractmethod
    def task_shapes(self, block: AbstractBlock) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter that a task owns for this layer if it transfers the layer."""

    @abstractmethod
    def initial_shared(self, block: AbstractBlock, plain: Weights, generator: torch.Generator) -> dict[str, Tensor]:
        """Fresh shared knowledge on the CPU, shaped as ``shared_shapes`` says.

        Args:
            block: the layer.
            plain: what the layer would start from if it had plain weights. What can start there should: methods are
                compared on equal starts.
            generator: source of random numbers.
        """

    @abstractmethod
    def initial_task(
        self, block: AbstractBlock, shared: Weights, plain: Weights, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """What a new task owns at its start, on the CPU, shaped as ``task_shapes`` says.

        Args:
            block: the layer.
            shared: the knowledge that is there already, on the CPU; it is only read.
            plain: what the layer would start from if it had plain weights.
            generator: source of random numbers.
        """

    def blend_with_fresh(
        self, block: AbstractBlock, shared: Weights, task: Weights, fresh: Weights, keep: float
    ) -> dict[str, Tensor]:
        """A task's part that was taken over from another task, moved part of the way to a fresh one.

        Where tasks own nearly all of a layer there is the same reason for it as with plain weights, which become
        ``keep`` w + sqrt(1 - ``keep``^2) w' (``TrainingConfig.specific_shrink``). Here: what was taken over, unchanged.

        Args:
            block: the layer.
            shared: the knowledge as it is.
            task: what was taken over.
            fresh: w', fresh plain weights of the layer.
            keep: in [0, 1].
        """
        return dict(task)

    @abstractmethod
    def weights(self, block: AbstractBlock, shared: Weights, task: Weights) -> dict[str, Tensor]:
        """The layer's weights, shaped as ``block.shapes`` says, differentiable in both arguments."""

    def penalty(self, block: AbstractBlock, task: Weights) -> Tensor | None:
        """What a transferred layer adds to the loss (a scalar), or None for nothing."""
        return None

    def num_shared(self, block: AbstractBlock) -> int:
        """Numbers that all tasks share for this layer, counted once."""
        return sum(math.prod(shape) for shape in self.shared_shapes(block).values())

    def num_owned(self, block: AbstractBlock, *, transferred: bool) -> int:
        """Numbers that a task owns for this layer."""
        shapes = self.task_shapes(block) if transferred else block.shapes
        return sum(math.prod(shape) for shape in shapes.values())


def check_trained(mechanism: str, train_shared: bool, pretrained: bool) -> None:
    """Raise ConfigError if shared weights would stay random for ever."""
    if not train_shared and not pretrained:
        raise ConfigError(
            f"{mechanism}.train_shared=False keeps shared weights as they start, which here is at random. Learn with a "
            f"pretrained module (lasem.nets.cut), or set train_shared to True."
        )
