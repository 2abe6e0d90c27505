"""Synaptic intelligence (SI): weights that lowered earlier losses are held by a quadratic penalty.

.. [Zenke2017] F. Zenke, B. Poole, S. Ganguli. Continual Learning Through Synaptic Intelligence. ICML 2017.

While a task is learned, omega adds up how much each weight's steps lowered the loss: minus the gradient times the step
that the optimiser took. The gradient is that of the task's own loss, without the penalty.

As in the authors' code, importances are kept from going below 0, where the penalty would push weights away. The paper
trains for a fixed number of epochs; here omega ends at the epoch whose weights are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, final

import torch
from torch import Tensor

from lasem.data import Task
from lasem.methods.method import AbstractShared, Learned, Setup
from lasem.methods.model import Model, prefixed
from lasem.methods.plain import NetworkPhase, gradient_of, initial_head, initial_layers, shared_and_own
from lasem.settings import Range
from lasem.training import Batch, Named, PhaseResult, Plan, Quadratic, Snapshot, Step, part_of
from lasem.tree import Path


@final
@dataclass(frozen=True, kw_only=True)
class SI(AbstractShared):
    """All layers shared, heads apart; loss CE + strength sum_p Omega_p (theta_p - theta*_p)^2 ([Zenke2017]_ eq. 4).

    p goes over the layers' weights and theta* are the weights after the last task. Omega = sum_i omega_i / (Delta_i^2 +
    damping) over the earlier tasks i, Delta_i being how far task i moved the weight (equation 5).
    """

    name: ClassVar[str] = "si"

    strength: Annotated[float, Range(least=0)] = 0.1
    """Weight of the penalty, the paper's c; not negative. 0.1 as in the paper's experiment with CIFAR."""
    damping: Annotated[float, Range(above=0)] = 1e-3
    """Added to squared distances, the paper's xi, so that weights that hardly moved get no great importance; above 0.
    0.001 as in the authors' code for CIFAR."""

    def plan(self, model: Model, task: Task, setup: Setup) -> Plan[Learned]:
        layers = {name: value.to(setup.device) for name, value in (model.shared or initial_layers(setup)).items()}
        paths = prefixed("path", {name: torch.zeros_like(value) for name, value in layers.items()})
        before = Quadratic.from_named(model.memory) if model.memory else None
        start = {**layers, **paths, **initial_head(setup, task.num_classes)}
        fitted: PhaseResult = yield _Phase(task, setup, start, before, self.strength)

        def model_of(snapshot: Snapshot) -> Model:
            shared, rest = shared_and_own(snapshot.weights)
            own = {name: value for name, value in rest.items() if name.startswith("head.")}
            memory = self.consolidate(before, part_of(rest, "path"), layers, shared)
            return Model(shared, {**model.own, task.name: own}, memory.named())

        return Learned.of(setup, fitted, model_of)

    def consolidate(self, before: Quadratic | None, paths: Named, start: Named, end: Named) -> Quadratic:
        """Return the sum in the penalty of the next task, around the weights at the end of this one.

        Args:
            before: the sum in this task's penalty; None for the first task.
            paths: omega of this task, by the weights' names.
            start: the weights before this task.
            end: the weights after it.
        """
        importance = {}
        for name, path in paths.items():
            added = path / ((end[name] - start[name]).square() + self.damping)
            importance[name] = (added if before is None else before.importance[name] + added).clamp(min=0)
        anchor = {name: end[name].clone() for name in paths}
        return Quadratic(importance, anchor, torch.zeros((), device=next(iter(anchor.values())).device))


@dataclass(eq=False)
class _Phase(NetworkPhase):
    """Trains layers and head; ``path.NAME``, omega of the weight NAME so far, goes along with every snapshot."""

    penalty: Quadratic | None
    strength: float
    _steps: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Of the step under way, each weight's gradient of the task's own loss, and its value before."""

    def scale(self, path: Path) -> float:
        return 0.0 if str(path[0]).startswith("path.") else 1.0

    def loss(self, weights: Named, batch: Batch, dropout: torch.Generator) -> Tensor:
        loss = super().loss(weights, batch, dropout)
        return loss if self.penalty is None else loss + self.strength * self.penalty.value(weights)

    @torch.no_grad()
    def change_gradients(self, weights: Named, step: Step) -> None:
        for name in part_of(weights, "path"):
            weight, gradient = weights[name], gradient_of(weights[name])
            if self.penalty is not None:
                pull = self.penalty.importance[name] * (weight - self.penalty.anchor[name])
                gradient = gradient - 2 * self.strength * pull
            self._steps[name] = gradient.clone(), weight.clone()

    def after_step(self, weights: Named, step: Step) -> None:
        for name, (gradient, before) in self._steps.items():  # minus the fall of the loss along the step, eq. 3
            weights[f"path.{name}"].sub_(gradient * (weights[name] - before))
