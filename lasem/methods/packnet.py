"""PackNet: each task keeps the largest of the weights that are free, and leaves the others to later tasks.

.. [Mallya2018] A. Mallya, S. Lazebnik. PackNet: Adding Multiple Tasks to a Single Network by Iterative Pruning. CVPR
   2018.

A task is trained in two phases. In the first all free weights are trained, with earlier tasks' weights in place but
fixed. Then, in every layer, the free weights of smallest magnitude become 0 and are free for the next task. In the
second phase the kept ones are trained once more.

The paper begins with a network that ImageNet has trained; here the first task begins at random and is pruned as the
others are. The optimiser, and how the step size falls in each phase, are ``TrainingConfig``'s, as every method's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, final

import torch
from torch import Tensor

from lasem.data import Task
from lasem.methods.method import AbstractMethod, Learned, Setup
from lasem.methods.model import Model, prefixed
from lasem.methods.plain import NetworkPhase, initial_head, initial_layers, shared_and_own
from lasem.methods.wsn import best_scored, frozen, kernels
from lasem.nets import Net
from lasem.settings import Range, Settings
from lasem.training import Named, PhaseResult, Plan, Snapshot, part_of


@final
@dataclass(frozen=True, kw_only=True)
class PackNet(Settings, AbstractMethod):
    """All layers shared, heads apart; a task answers with its own and earlier tasks' weights ([Mallya2018]_ Section 3).

    Biases are trained by the first task and fixed from then on.
    """

    name: ClassVar[str] = "packnet"
    keeps: ClassVar[bool] = True
    harm_of_decay: ClassVar[str] = "shrink the weights that earlier tasks have fixed"

    pruned: Annotated[float, Range(least=0, below=1)] = 0.75
    """Share of each layer's free weights that a task prunes, rounded down; at least 0, below 1. 0.75 is the paper's for
    all tasks after ImageNet."""
    retrain_share: Annotated[float, Range(above=0, below=1)] = 1 / 3
    """Share of a task's epochs after the pruning; between 0 and 1. A third, as of the paper's 20 and 10 epochs."""
    retrain_rate: Annotated[float, Range(above=0)] = 1.0
    """Step size after the pruning, relative to that before; above 0. 0.1 in the authors' scripts, whose network is
    pretrained; a network that begins at random does not recover from the pruning with so small steps."""

    def plan(self, model: Model, task: Task, setup: Setup) -> Plan[Learned]:
        earlier, start = frozen(model), dict(model.shared or initial_layers(setup))
        biases = [name for name in start if name not in kernels(setup.net)]
        fixed = {name: torch.ones_like(start[name], dtype=torch.bool) for name in biases if earlier} | earlier
        before, after = setup.divided(1 - self.retrain_share, self.retrain_rate)
        start |= initial_head(setup, task.num_classes)
        trained: PhaseResult = yield _Phase(task, before, start, title="training", fixed=fixed)

        weights = trained.kept(setup.training.restore_best).weights
        masks = {name: self.kept(weights[name], earlier.get(name)) for name in kernels(setup.net)}
        fitted: PhaseResult = yield _Phase(
            task, after, masked(weights, masks), masks, "last", goes_on=True, fixed=fixed
        )

        def model_of(snapshot: Snapshot) -> Model:
            shared, own = shared_and_own(snapshot.weights)
            return Model(shared, {**model.own, task.name: {**prefixed("mask", masks), **own}})

        return Learned.of(setup, fitted, model_of)

    def plain_weights(self, net: Net, model: Model, name: str) -> dict[str, Tensor]:
        own = model.own[name]
        return masked({**model.shared, **own}, part_of(own, "mask"))

    def kept(self, weights: Tensor, fixed: Tensor | None) -> Tensor:
        """Return the mask of a layer's weights that a task answers with, in their shape.

        Args:
            weights: the layer's, after the first phase.
            fixed: mask of the earlier tasks' weights, which all stay; None for the first task.
        """
        mask = torch.zeros_like(weights, dtype=torch.bool) if fixed is None else fixed.clone()
        free = weights[~mask]
        if len(free) > 0:
            mask[~mask] = best_scored(free.abs(), 1 - self.pruned)
        return mask


def masked(weights: Named, masks: Named) -> dict[str, Tensor]:
    """Return weights with 0 outside of the masks; those without a mask stay."""
    return {**weights, **{name: torch.where(mask, weights[name], 0.0) for name, mask in masks.items()}}


@dataclass(eq=False)
class _Phase(NetworkPhase):
    masks: Named = field(default_factory=dict)
    """Of the weights that are used, by name, once the layers are pruned."""
    title: str = ""
    goes_on: bool = False

    def answer(self, weights: Named, dropout: torch.Generator | None = None) -> Callable[[Tensor], Tensor]:
        return super().answer(masked(weights, self.masks), dropout)
