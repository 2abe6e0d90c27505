"""Importance of weights: the diagonal of the Fisher information, and the quadratic penalty that holds what matters.

.. [vandeVen2025] G. M. van de Ven. On the computation of the Fisher Information in continual learning. ICLR Blogposts
   2025.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor

from lasem.nets.block import part_of
from lasem.training.phase import Named
from lasem.tree import named

FisherKind = Literal["exact", "sampled", "empirical"]
"""How the squared derivatives of log p(y | x) are weighed over the labels y, for every image by itself
([vandeVen2025]_): by p(y | x), which is the definition; for one label drawn from p(y | x); for the true label."""

Answer = Callable[[Named, Tensor], Tensor]
"""Logits (B, num_classes) of images (B, ...) with some weights, without dropout; a function that vmap can take."""

MAX_IMAGES = 64
"""Images in a mini-batch of which importances are computed."""

_MAX_NUMBERS = 2**23
"""Numbers that the gradients of single images may take at a time: 32 MiB."""


def directions_of(logits: Tensor, labels: Tensor, kind: FisherKind, draws: torch.Generator | None = None) -> Tensor:
    """Return factors (B, K, C) of log p(y | x): the squared gradients of the K sums add up to an image's importances.

    Logits are of shape (B, C), labels (B,), which only ``empirical`` asks for; ``sampled`` draws others from ``draws``.
    """
    probabilities = torch.softmax(logits, dim=1)
    if kind == "exact":  # (sqrt(p) dlog p)^2 = p (dlog p)^2
        return torch.diag_embed(probabilities.sqrt())
    if kind == "sampled":
        uniform = torch.rand(len(logits), 1, generator=draws).to(logits)
        labels = (probabilities.cumsum(dim=1) <= uniform).sum(dim=1).clamp(max=logits.shape[1] - 1)
    return F.one_hot(labels, logits.shape[1]).to(logits)[:, None]


def squared_gradients(answer: Answer, weights: Named, x: Tensor, directions: Tensor) -> dict[str, Tensor]:
    """Return the sum over images b and directions k of (d/d theta sum_y directions[b, k, y] log p(y | x_b))^2.

    Each image's gradients are taken by themselves: the square of a batch's mean gradient is something else.

    Args:
        answer: the network.
        weights: theta, by name.
        x: shape (B, ...).
        directions: shape (B, K, number of classes).

    Returns:
        One tensor for each weight, in its shape.
    """

    def along(weights: Named, image: Tensor, direction: Tensor) -> Tensor:
        return direction @ torch.log_softmax(answer(weights, image[None])[0], dim=0)

    of_directions = torch.func.vmap(torch.func.grad(along), in_dims=(None, None, 0))  # they share the forward pass
    gradients = torch.func.vmap(of_directions, in_dims=(None, 0, 0))
    size = max(1, sum(value.numel() for value in weights.values()))
    num_directions = max(1, min(directions.shape[1], _MAX_NUMBERS // size))
    num_images = max(1, _MAX_NUMBERS // (size * num_directions))
    total = {name: torch.zeros_like(value) for name, value in weights.items()}
    for images, per_image in zip(torch.split(x, num_images), torch.split(directions, num_images), strict=True):
        for part in torch.split(per_image, num_directions, dim=1):
            for name, value in gradients(dict(weights), images, part).items():
                total[name] += value.square_().sum(dim=(0, 1))
    return total


def fisher_information(
    answer: Answer,
    weights: Named,
    batches: Iterable[tuple[Tensor, Tensor]],
    kind: FisherKind,
    draws: torch.Generator,
    logits: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return the diagonal of the Fisher information of a network's answers in some weights, a mean over images.

    Args:
        answer: the network.
        weights: by name; whatever else ``answer`` computes with is constant.
        batches: images (B, ...) and labels (B,).
        kind: see ``FisherKind``.
        draws: source of the labels of kind ``sampled``, on the CPU.
        logits: the network with these weights, if that is computed otherwise than by ``answer``.
    """
    logits = logits or partial(answer, weights)
    total = {name: torch.zeros_like(value) for name, value in weights.items()}
    num_images = 0
    for x, labels in batches:
        with torch.no_grad():
            directions = directions_of(logits(x), labels, kind, draws)
        for name, squares in squared_gradients(answer, weights, x, directions).items():
            total[name] += squares
        num_images += len(x)
    return {name: value / num_images for name, value in total.items()}


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
    def from_named(cls, flat: Named) -> "Quadratic":
        """Build what ``named`` took apart."""
        return cls(part_of(flat, "importance"), part_of(flat, "anchor"), flat["constant"])

    def named(self) -> dict[str, Tensor]:
        """Return every tensor under one name: ``importance.NAME``, ``anchor.NAME`` and ``constant``."""
        return named(self)

    def of(self, wanted: Callable[[str], bool]) -> "Quadratic | None":
        """Return the sum over some weights alone, but for its constant; None if none is wanted."""
        names = [name for name in self.importance if wanted(name)]
        if not names:
            return None
        return Quadratic({n: self.importance[n] for n in names}, {n: self.anchor[n] for n in names}, self.constant)

    def value(self, weights: Named) -> Tensor:
        """Return the sum at some weights, a scalar; weights that it does not know are free."""
        total = self.constant
        for name, importance in sorted(self.importance.items()):  # a loaded one has another order, and a sum goes by it
            if name in weights:
                total = total + (importance * (weights[name] - self.anchor[name]).square()).sum()
        return total


def with_term(before: Quadratic | None, importances: Named, weights: Named) -> Quadratic:
    """Return the sum with one more task's term in it.

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
