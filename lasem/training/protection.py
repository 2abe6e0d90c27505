"""Protection of shared knowledge while a new task is learned, because earlier tasks answer with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from lasem.training.phase import Named
from lasem.tree import part_of


@final
@dataclass(frozen=True)
class Quadratic:
    """sum_i sum_p F_i,p (theta_p - theta*_i,p)^2, kept as sum_p G_p (theta_p - m_p)^2 + c, which loses nothing.

    G = sum_i F_i and m = sum_i F_i theta*_i / G. Both are brought up to date as a running mean and variance are, so
    that nothing cancels.
    """

    importance: Mapping[str, Tensor]
    """G, by the weights' names."""
    anchor: Mapping[str, Tensor]
    """m, by the weights' names."""
    constant: Tensor
    """c, shape ()."""

    @classmethod
    def from_named(cls, flat: Named) -> Quadratic:
        """Build what ``named`` flattened."""
        return cls(part_of(flat, "importance"), part_of(flat, "anchor"), flat["constant"])

    def named(self) -> dict[str, Tensor]:
        """Every tensor under one flat name: ``importance.NAME``, ``anchor.NAME`` and ``constant``."""
        flat = {f"importance.{name}": value for name, value in self.importance.items()}
        flat |= {f"anchor.{name}": value for name, value in self.anchor.items()}
        return {**flat, "constant": self.constant}

    def of(self, wanted: Callable[[str], bool]) -> Quadratic | None:
        """The sum over some weights alone, but for its constant; None if none is wanted."""
        names = [name for name in self.importance if wanted(name)]
        if not names:
            return None
        return Quadratic({n: self.importance[n] for n in names}, {n: self.anchor[n] for n in names}, self.constant)

    def value(self, weights: Named) -> Tensor:
        """The sum at some weights, a scalar; weights that it does not know are free."""
        total = self.constant
        for name, importance in sorted(self.importance.items()):  # a loaded one has another order, and a sum goes by it
            if name in weights:
                total = total + (importance * (weights[name] - self.anchor[name]).square()).sum()
        return total


def with_term(before: Quadratic | None, importances: Named, weights: Named) -> Quadratic:
    """The sum with one more task's term in it.

    Args:
        before: the sum so far, if there is any.
        importances: F of the task, by the weights' names; other weights of the sum stay as they are.
        weights: theta* after the task.
    """
    constant = torch.zeros_like(next(iter(weights.values()))).sum() if before is None else before.constant
    importance = {} if before is None else dict(before.importance)
    anchor = {} if before is None else dict(before.anchor)
    for name in sorted(importances):
        if name not in importance:
            # a tensor of its own: files hold no two names of one
            importance[name], anchor[name] = importances[name], weights[name].clone()
            continue
        total = importance[name] + importances[name]
        # a weight that no task needs (dead ReLU) has no mean; any place will do
        share = torch.where(total > 0, importances[name] / total, 1.0)
        moved = weights[name] - anchor[name]
        constant = constant + (importance[name] * share * moved.square()).sum()
        importance[name], anchor[name] = total, anchor[name] + share * moved
    return Quadratic(importance, anchor, constant)


@final
@dataclass(frozen=True)
class SharedProtection:
    """Shared knowledge that is only read, or pulled back to where earlier tasks need it; by default neither."""

    read_only: frozenset[int] = frozenset()
    """Layers, counted from 0, whose shared knowledge does not change."""
    quadratic: Quadratic | None = None
    """Over names such as ``layer.0.shared.weight``."""
    strength: float = 0.0
    """Half of it times the quadratic is added to the loss."""

    def penalty(self, weights: Named) -> Tensor | None:
        """Return what is added to the loss, a scalar; None for nothing."""
        return None if self.quadratic is None else self.strength / 2 * self.quadratic.value(weights)
