"""Elastic weight consolidation (EWC): weights that earlier tasks need are held back by a quadratic penalty.

.. [Kirkpatrick2017] J. Kirkpatrick et al. Overcoming catastrophic forgetting in neural networks. PNAS 114(13), 2017.
.. [Schwarz2018] J. Schwarz et al. Progress and Compress: A scalable framework for continual learning. ICML 2018.
.. [vandeVen2025] G. M. van de Ven. On the computation of the Fisher Information in continual learning. ICLR Blogposts
   2025.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor

from lasem.baselines.method import AbstractMethod, Learned, Model, Setup
from lasem.baselines.plain import initial_head, initial_layers, run
from lasem.data import Task
from lasem.errors import check_choice, check_range
from lasem.nets import Net
from lasem.training import AbstractPhase, Batch, Fitted, Named, Plan, Seen, part_of, share_right

_MOST_NUMBERS = 2**23
"""Numbers that the gradients of single images may take at a time: 32 MiB."""
_MOST_IMAGES = 64


@final
@dataclass(frozen=True, kw_only=True)
class EWC(AbstractMethod):
    """All layers shared, heads apart; loss CE + strength / 2 sum_i sum_p F_i,p (theta_p - theta*_i,p)^2.

    i goes over the earlier tasks, p over the layers' weights, theta*_i are the weights after task i, and F_i is the
    diagonal of the Fisher information of the task's answers there, a mean over training images without dropout
    ([Kirkpatrick2017]_, equation 3).
    """

    name: ClassVar[str] = "ewc"

    strength: float = 10000.0
    """Weight of the penalty; not negative. It is not portable between ways to compute the importances: this one is for
    exact ones, a mean over images."""
    fisher: Literal["exact", "sampled", "empirical"] = "exact"
    """How the squared derivatives of log p(y | x) are weighed over the labels y, for every image by itself
    ([vandeVen2025]_): by p(y | x), which is the definition; for one label drawn from p(y | x); for the true label."""
    form: Literal["separate", "online"] = "separate"
    """``separate``: one quadratic term for each earlier task; their sum is kept as one quadratic, which is the same.
    ``online``: one term around the latest weights, with importances F <- decay F + F_i ([Schwarz2018]_)."""
    decay: float = 1.0
    """What the ``online`` form keeps of the importances with every task; in [0, 1]."""
    num_samples: int = 0
    """Training images that importances are computed from, drawn at random; 0 takes all."""

    def __post_init__(self) -> None:
        check_range("EWC.strength", self.strength, least=0)
        check_choice("EWC.fisher", self.fisher, ("exact", "sampled", "empirical"))
        check_choice("EWC.form", self.form, ("separate", "online"))
        check_range("EWC.decay", self.decay, least=0, most=1)
        check_range("EWC.num_samples", self.num_samples, least=0)

    def plan(self, model: Model, task: Task, setup: Setup) -> Plan[Learned]:
        """One phase; then the importances of the shared weights are added up."""
        layers = model.shared or initial_layers(setup)
        fitted: Fitted = yield _Phase(self, model, task, setup, {**layers, **initial_head(setup, task.num_classes)})
        kept = fitted.kept(setup.training.restore_best)
        shared = {name: value for name, value in kept.weights.items() if name.startswith("layer.")}
        own = {name: value for name, value in kept.weights.items() if name.startswith("head.")}
        memory = self.consolidate(model.memory, self.importances(shared, own, task, setup), shared)
        learned = Model(shared, {**model.own, task.name: own}, memory)
        return Learned(learned, kept.epoch, kept.valid_accuracy, fitted.num_epochs)

    def logits(self, net: Net, model: Model, name: str, x: Tensor) -> Tensor:
        """The shared layers and the task's head."""
        return run(net, {**model.shared, **model.own[name]}, x)

    def importances(self, layers: Named, head: Named, task: Task, setup: Setup) -> dict[str, Tensor]:
        """Diagonal of the Fisher information of the layers' weights, by name; the head's weights are constants.

        Args:
            layers: weights after the task, by flat name.
            head: the task's.
            task: gives the training images.
            setup: network, device, sources of random numbers.
        """
        draws = setup.generator("importances", "labels")
        total = {name: torch.zeros_like(value) for name, value in layers.items()}
        num_images = 0
        for x, labels in self._images(task, setup):
            directions = self._directions(run(setup.net, {**layers, **head}, x), labels, draws)
            for name, squares in squared_gradients(setup.net, layers, head, x, directions).items():
                total[name] += squares
            num_images += len(x)
        return {name: value / num_images for name, value in total.items()}

    def consolidate(self, memory: Named, importances: Named, weights: Named) -> dict[str, Tensor]:
        """What later tasks are held back by, once one more task's term has been added.

        The sum of separate terms is completed to one square, which loses nothing: with G = sum_i F_i and m = sum_i F_i
        theta*_i / G, sum_i F_i (theta - theta*_i)^2 = G (theta - m)^2 + c. They are brought up to date as a running
        mean and variance are, so that nothing cancels.

        Args:
            memory: ``importance.NAME`` (G), ``anchor.NAME`` (m) and ``constant`` (c, shape ()) so far; or nothing.
            importances: the task's, by name.
            weights: after the task, by name.
        """
        if not memory:
            before, anchors, constant = {}, {}, torch.zeros_like(next(iter(weights.values()))).sum()
        else:
            before, anchors, constant = part_of(memory, "importance"), part_of(memory, "anchor"), memory["constant"]
        merged: dict[str, Tensor] = {}
        for name in sorted(importances):  # a loaded model has them in another order, and a sum depends on it
            importance, weight = importances[name], weights[name]
            if name not in before:
                total, anchor = importance, weight
            elif self.form == "online":
                total, anchor = self.decay * before[name] + importance, weight
            else:
                total = before[name] + importance
                # a weight that no task needs (dead ReLU) has no mean; any place will do
                share = torch.where(total > 0, importance / total, 1.0)
                moved = weight - anchors[name]
                anchor = anchors[name] + share * moved
                constant = constant + (before[name] * share * moved.square()).sum()
            merged |= {f"importance.{name}": total, f"anchor.{name}": anchor}
        return {**merged, "constant": constant}

    def penalty(self, memory: Named, weights: Named) -> Tensor:
        """strength / 2 sum_i sum_p F_i,p (theta_p - theta*_i,p)^2, a scalar.

        Args:
            memory: what ``consolidate`` gave.
            weights: by name; those that memory does not know, such as heads, are free.
        """
        anchors = part_of(memory, "anchor")
        total = memory["constant"]
        for name, importance in sorted(part_of(memory, "importance").items()):
            total = total + (importance * (weights[name] - anchors[name]).square()).sum()
        return self.strength / 2 * total

    def _images(self, task: Task, setup: Setup) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels that importances are computed from."""
        left = min(self.num_samples or len(task.train), len(task.train))
        order = setup.generator("importances", "images") if left < len(task.train) else None
        for x, labels in task.train.batches(_MOST_IMAGES, device=setup.device, generator=order):
            yield x[:left], labels[:left]
            left -= len(x)
            if left <= 0:
                return

    def _directions(self, logits: Tensor, labels: Tensor, draws: torch.Generator) -> Tensor:
        """Factors (B, K, C) of log p(y | x): the squared gradients of the K sums add up to an image's importances."""
        probabilities = torch.softmax(logits, dim=1)
        if self.fisher == "exact":  # (sqrt(p) dlog p)^2 = p (dlog p)^2
            return torch.diag_embed(probabilities.sqrt())
        if self.fisher == "sampled":
            uniform = torch.rand(len(logits), 1, generator=draws).to(logits)
            labels = (probabilities.cumsum(dim=1) <= uniform).sum(dim=1).clamp(max=logits.shape[1] - 1)
        return F.one_hot(labels, logits.shape[1]).to(logits)[:, None]


def squared_gradients(net: Net, layers: Named, head: Named, x: Tensor, directions: Tensor) -> dict[str, Tensor]:
    """Sum over images b and directions k of (d/d theta sum_y directions[b, k, y] log p(y | x_b))^2, without dropout.

    Each image's gradients are taken by themselves: the square of a batch's mean gradient is something else.

    Args:
        net: the network.
        layers: theta, by flat name.
        head: the task's, constant.
        x: shape (B, channels, height, width).
        directions: shape (B, K, number of classes).

    Returns:
        One tensor for each layer's weight, in its shape.
    """

    def answer(layers: Named, image: Tensor, direction: Tensor) -> Tensor:
        features = image[None]
        for i, block in enumerate(net.blocks):  # plain.run asks for a memory layout, which vmap does not know
            features = block.apply(part_of(layers, f"layer.{i}"), features)
        logits = net.head.apply(part_of(head, "head"), features)[0]
        return direction @ torch.log_softmax(logits, dim=0)

    of_directions = torch.func.vmap(torch.func.grad(answer), in_dims=(None, None, 0))  # they share the forward pass
    gradients = torch.func.vmap(of_directions, in_dims=(None, 0, 0))
    size = max(1, sum(value.numel() for value in layers.values()))
    num_directions = max(1, min(directions.shape[1], _MOST_NUMBERS // size))
    num_images = max(1, _MOST_NUMBERS // (size * num_directions))
    total = {name: torch.zeros_like(value) for name, value in layers.items()}
    for images, per_image in zip(torch.split(x, num_images), torch.split(directions, num_images), strict=True):
        for part in torch.split(per_image, num_directions, dim=1):
            for name, value in gradients(dict(layers), images, part).items():
                total[name] += value.square_().sum(dim=(0, 1))
    return total


class _Phase(AbstractPhase):
    """Cross-entropy and the penalty."""

    def __init__(self, method: EWC, model: Model, task: Task, setup: Setup, initial: dict[str, Tensor]) -> None:
        self.task, self.config = task, setup.training
        self._method, self._model, self._setup, self._initial = method, model, setup, initial

    def initial(self) -> dict[str, Tensor]:
        return self._initial

    def loss(self, weights: Named, batch: Batch, dropout: torch.Generator) -> Tensor:
        logits = run(self._setup.net, weights, batch.x, dropout=dropout)
        loss = F.cross_entropy(logits, batch.labels)
        return loss + self._method.penalty(self._model.memory, weights) if self._model.memory else loss

    def accuracy(self, weights: Named) -> float:
        return share_right(lambda x: run(self._setup.net, weights, x), self.task.valid, self._setup.device)

    def seen(self) -> Seen:
        return Seen("T" * self._setup.net.depth)
