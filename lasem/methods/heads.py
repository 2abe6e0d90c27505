"""Layers that are trained together with the heads of all tasks.

Flat names: ``layer.I.NAME``, and ``task.K.head.NAME`` for the head of the K-th task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lasem.methods.model import Model, prefixed
from lasem.methods.plain import NetworkPhase, features, shared_and_own
from lasem.training import Named, part_of


def with_heads(layers: Named, heads: Iterable[Named]) -> dict[str, Tensor]:
    """Return the layers' weights and those of each task's head under one name each."""
    weights = dict(layers)
    for k, head in enumerate(heads):
        weights |= prefixed(f"task.{k}", head)
    return weights


def network_of(weights: Named, k: int) -> dict[str, Tensor]:
    """Return the plain network that answers for the k-th task."""
    return {**shared_and_own(weights)[0], **part_of(weights, f"task.{k}")}


def model_of_heads(weights: Named, names: Iterable[str], memory: Named) -> Model:
    """Return the model in which each task owns its head.

    Args:
        weights: as ``with_heads`` returns them.
        names: of the tasks, in the order of their heads.
        memory: see ``Model``.
    """
    own = {name: part_of(weights, f"task.{k}") for k, name in enumerate(names)}
    return Model(shared_and_own(weights)[0], own, memory)


@dataclass(eq=False)
class HeadsPhase(NetworkPhase):
    """Trains the layers and every head, of which the last one is the new task's."""

    num_tasks: int
    """With the new one."""

    def answer(self, weights: Named, dropout: torch.Generator | None = None) -> Callable[[Tensor], Tensor]:
        return super().answer(network_of(weights, self.num_tasks - 1), dropout)

    def answers(
        self, weights: Named, x: Tensor, num_heads: int, dropout: torch.Generator | None = None
    ) -> list[Tensor]:
        """Return the logits (B, number of the task's classes) of the first heads, whose layers run once.

        Args:
            weights: as ``with_heads`` returns them.
            x: shape (B, channels, height, width).
            num_heads: how many heads answer.
            dropout: source of one dropout mask for each head; None switches dropout off.
        """
        net, inputs = self.setup.net, features(self.setup.net, weights, x)
        return [net.head.apply(part_of(weights, f"task.{k}.head"), inputs, dropout) for k in range(num_heads)]
