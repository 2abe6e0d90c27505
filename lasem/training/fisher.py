"""Diagonal of the Fisher information: how much each weight matters to a network's answers.

.. [vandeVen2025] G. M. van de Ven. On the computation of the Fisher Information in continual learning. ICLR Blogposts
   2025.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lasem.training.phase import Named

FisherKind = Literal["exact", "sampled", "empirical"]
"""How the squared derivatives of log p(y | x) are weighed over the labels y, for every image by itself
([vandeVen2025]_): by p(y | x), which is the definition; for one label drawn from p(y | x); for the true label."""

Answer = Callable[[Named, Tensor], Tensor]
"""Logits (B, num_classes) of images (B, ...) with some weights, without dropout; a function that vmap can take."""

_MOST_NUMBERS = 2**23
"""Numbers that the gradients of single images may take at a time: 32 MiB."""


def directions_of(logits: Tensor, labels: Tensor, kind: FisherKind, draws: torch.Generator | None = None) -> Tensor:
    """Factors (B, K, C) of log p(y | x): the squared gradients of the K sums add up to an image's importances.

    Args:
        logits: shape (B, C).
        labels: shape (B,); ``empirical`` asks for them.
        kind: see ``FisherKind``.
        draws: source of the labels that ``sampled`` draws.
    """
    probabilities = torch.softmax(logits, dim=1)
    if kind == "exact":  # (sqrt(p) dlog p)^2 = p (dlog p)^2
        return torch.diag_embed(probabilities.sqrt())
    if kind == "sampled":
        uniform = torch.rand(len(logits), 1, generator=draws).to(logits)
        labels = (probabilities.cumsum(dim=1) <= uniform).sum(dim=1).clamp(max=logits.shape[1] - 1)
    return F.one_hot(labels, logits.shape[1]).to(logits)[:, None]


def squared_gradients(answer: Answer, weights: Named, x: Tensor, directions: Tensor) -> dict[str, Tensor]:
    """Sum over images b and directions k of (d/d theta sum_y directions[b, k, y] log p(y | x_b))^2.

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
    num_directions = max(1, min(directions.shape[1], _MOST_NUMBERS // size))
    num_images = max(1, _MOST_NUMBERS // (size * num_directions))
    total = {name: torch.zeros_like(value) for name, value in weights.items()}
    for images, per_image in zip(torch.split(x, num_images), torch.split(directions, num_images), strict=True):
        for part in torch.split(per_image, num_directions, dim=1):
            for name, value in gradients(dict(weights), images, part).items():
                total[name] += value.square_().sum(dim=(0, 1))
    return total
