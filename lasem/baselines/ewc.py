"""Elastic weight consolidation (EWC): weights that earlier tasks need are held back by a quadratic penalty.

.. [Kirkpatrick2017] J. Kirkpatrick et al. Overcoming catastrophic forgetting in neural networks. PNAS 114(13), 2017.
.. [Schwarz2018] J. Schwarz et al. Progress and Compress: A scalable framework for continual learning. ICML 2018.
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
from lasem.training import (
    AbstractPhase,
    Batch,
    FisherKind,
    Fitted,
    Named,
    Plan,
    Quadratic,
    Seen,
    directions_of,
    part_of,
    share_right,
    squared_gradients,
    with_term,
)

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
    fisher: FisherKind = "exact"
    """How the squared derivatives of log p(y | x) are weighed over the labels y, for every image by itself: by
    p(y | x), which is the definition; for one label drawn from p(y | x); for the true label (see ``FisherKind``)."""
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

        def answer(layers: Named, x: Tensor) -> Tensor:
            for i, block in enumerate(setup.net.blocks):  # plain.run asks for a memory layout, which vmap does not know
                x = block.apply(part_of(layers, f"layer.{i}"), x)
            return setup.net.head.apply(part_of(head, "head"), x)

        for x, labels in self._images(task, setup):
            directions = directions_of(run(setup.net, {**layers, **head}, x), labels, self.fisher, draws)
            for name, squares in squared_gradients(answer, layers, x, directions).items():
                total[name] += squares
            num_images += len(x)
        return {name: value / num_images for name, value in total.items()}

    def consolidate(self, memory: Named, importances: Named, weights: Named) -> dict[str, Tensor]:
        """What later tasks are held back by, once one more task's term has been added.

        Args:
            memory: a ``Quadratic`` as named tensors; or nothing.
            importances: the task's, by name.
            weights: after the task, by name.
        """
        before = Quadratic.from_named(memory) if memory else None
        if before is None or self.form == "separate":
            return with_term(before, importances, weights).named()
        total = {name: self.decay * before.importance[name] + value for name, value in importances.items()}
        return Quadratic(total, {name: weights[name] for name in importances}, before.constant).named()

    def penalty(self, memory: Named, weights: Named) -> Tensor:
        """strength / 2 sum_i sum_p F_i,p (theta_p - theta*_i,p)^2, a scalar.

        Args:
            memory: what ``consolidate`` gave.
            weights: by name; those that memory does not know, such as heads, are free.
        """
        return self.strength / 2 * Quadratic.from_named(memory).value(weights)

    def _images(self, task: Task, setup: Setup) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels that importances are computed from."""
        left = min(self.num_samples or len(task.train), len(task.train))
        order = setup.generator("importances", "images") if left < len(task.train) else None
        for x, labels in task.train.batches(_MOST_IMAGES, device=setup.device, generator=order):
            yield x[:left], labels[:left]
            left -= len(x)
            if left <= 0:
                return


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
