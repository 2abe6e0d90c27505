"""Elastic weight consolidation (EWC): weights that earlier tasks need are held back by a quadratic penalty.

.. [Kirkpatrick2017] J. Kirkpatrick et al. Overcoming catastrophic forgetting in neural networks. PNAS 114(13), 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from lasem.baselines.method import AbstractMethod, Learned, Model, Setup, share_right
from lasem.baselines.plain import initial_head, initial_layers, run
from lasem.data import Task
from lasem.errors import check_range
from lasem.nets import Net
from lasem.training import AbstractPhase, Batch, Fitted, Named, Plan, Seen


@final
@dataclass(frozen=True, kw_only=True)
class EWC(AbstractMethod):
    """All layers shared, heads apart; loss CE + strength / 2 sum_p F_p (theta_p - theta*_p)^2 ([Kirkpatrick2017]_)."""

    name: ClassVar[str] = "ewc"

    strength: float = 5000.0
    """Weight of the penalty; not negative. It is not portable between ways to compute the importances."""

    def __post_init__(self) -> None:
        check_range("EWC.strength", self.strength, least=0)

    def plan(self, model: Model, task: Task, setup: Setup) -> Plan[Learned]:
        """One phase; then the importances of the shared weights are added up."""
        layers = model.shared or initial_layers(setup)
        fitted: Fitted = yield _Phase(self, model, task, setup, {**layers, **initial_head(setup, task.num_classes)})
        kept = fitted.kept(setup.training.restore_best)
        shared = {name: value for name, value in kept.weights.items() if name.startswith("layer.")}
        own = {name: value for name, value in kept.weights.items() if name.startswith("head.")}
        learned = model.having(shared=shared, own={**model.own, task.name: own})
        return Learned(learned, kept.epoch, kept.valid_accuracy, fitted.num_epochs)

    def logits(self, net: Net, model: Model, name: str, x: Tensor) -> Tensor:
        """The shared layers and the task's head."""
        return run(net, {**model.shared, **model.own[name]}, x)


class _Phase(AbstractPhase):
    def __init__(self, method: EWC, model: Model, task: Task, setup: Setup, initial: dict[str, Tensor]) -> None:
        self.task, self.config = task, setup.training
        self._method, self._model, self._setup, self._initial = method, model, setup, initial

    def initial(self) -> dict[str, Tensor]:
        return self._initial

    def loss(self, weights: Named, batch: Batch, dropout: torch.Generator) -> Tensor:
        logits = run(self._setup.net, weights, batch.x, dropout=dropout)
        return torch.nn.functional.cross_entropy(logits, batch.labels)

    def accuracy(self, weights: Named) -> float:
        return share_right(lambda x: run(self._setup.net, weights, x), self.task.valid, self._setup.device)

    def seen(self) -> Seen:
        return Seen("T" * self._setup.net.depth)
