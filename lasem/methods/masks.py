"""Masks of weights: each task uses a part of one network, and what an earlier task uses never changes.

.. [Kang2022] H. Kang, R. J. L. Mina, S. R. H. Madjid, J. Yoon, M. Hasegawa-Johnson, S. J. Hwang, C. D. Yoo. Forget-free
   Continual Learning with Winning Subnetworks. ICML 2022.
.. [Mallya2018] A. Mallya, S. Lazebnik. PackNet: Adding Multiple Tasks to a Single Network by Iterative Pruning. CVPR
   2018.

Winning subnetworks (WSN): each task uses the best-scored share of every layer's weights. Weights and scores are trained
together: the forward pass uses the weights with the highest scores of their layer, and the scores get their gradients
as if the mask were the scores themselves. Weights that an earlier task uses may be used again, but never change.

Where the paper leaves it open, scores go on from the task before, as in the authors' code, so a new task begins with
the subnetwork of the last one. The paper's networks have no biases; ours, one number a unit, are each task's own, as
its head is.

PackNet: each task keeps the largest of the weights that are free, and leaves the others to later tasks. A task is
trained in two phases. In the first all free weights are trained, with earlier tasks' weights in place but fixed. Then,
in every layer, the free weights of smallest magnitude become 0 and are free for the next task. In the second phase the
kept ones are trained once more.

The paper begins with a network that ImageNet has trained; here the first task begins at random and is pruned as the
others are. The optimiser, and how the step size falls in each phase, are ``TrainingConfig``'s, as every method's.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, final

import torch
from torch import Tensor

from lasem.data import Task
from lasem.methods.method import AbstractMethod, Learned, Setup
from lasem.methods.model import Model, prefixed
from lasem.methods.plain import NetworkPhase, initial_head, initial_layers, shared_and_own
from lasem.nets import Net
from lasem.settings import Range, Settings
from lasem.training import Named, PhaseResult, Plan, Snapshot, part_of
from lasem.tree import Path


@final
@dataclass(frozen=True, kw_only=True)
class WSN(Settings, AbstractMethod):
    """Every layer's weights shared through binary masks; masks, biases and heads are a task's own ([Kang2022]_)."""

    name: ClassVar[str] = "wsn"
    harm_of_decay: ClassVar[str] = "shrink the weights that earlier tasks have frozen"

    capacity: Annotated[float, Range(above=0, most=1)] = 0.5
    """Share c of each layer's weights that a task uses; above 0, at most 1."""
    score_rate: Annotated[float, Range(above=0)] = 1.0
    """Step size of the scores by which weights are chosen, relative to the weights'; positive."""

    def plan(self, model: Model, task: Task, setup: Setup) -> Plan[Learned]:
        fresh, names = initial_layers(setup), kernels(setup.net)
        shared = model.shared or {name: fresh[name] for name in names}
        biases = {name: value for name, value in fresh.items() if name not in names}
        scores = model.memory or _initial_scores(setup)
        start = {**shared, **biases, **scores, **initial_head(setup, task.num_classes)}
        fitted: PhaseResult = yield _WSNPhase(task, setup, start, self, fixed=frozen(model))

        def model_of(snapshot: Snapshot) -> Model:
            weights = snapshot.weights
            masks = {f"mask.{name}": best_scored(weights[f"score.{name}"], self.capacity) for name in names}
            own = {name: value for name, value in weights.items() if name in biases or name.startswith("head.")}
            return Model(
                shared={name: weights[name] for name in shared},
                own={**model.own, task.name: {**masks, **own}},
                memory={name: weights[name] for name in scores},
            )

        return Learned.of(setup, fitted, model_of)

    def plain_weights(self, net: Net, model: Model, name: str) -> dict[str, Tensor]:
        own = model.own[name]
        masked = {k: torch.where(mask, model.shared[k], 0.0) for k, mask in part_of(own, "mask").items()}
        return {**own, **masked}


def kernels(net: Net) -> dict[str, tuple[int, ...]]:
    """Return flat names and shapes of the weights that have scores: every layer's, but for the biases."""
    return {
        f"layer.{i}.{name}": shape
        for i, block in enumerate(net.blocks)
        for name, shape in block.shapes.items()
        if len(shape) > 1
    }


def best_scored(scores: Tensor, capacity: float) -> Tensor:
    """Return the mask of the ceil(c n) highest of n scores, in their shape ([Kang2022]_).

    Of equal scores, the first ones in memory are taken, so that the mask has exactly so many entries and is the same
    on every device.
    """
    flat = scores.detach().flatten()
    num = max(1, math.ceil(round(capacity * flat.numel(), 6)))  # .07 * 100 is a little more than 7
    least = flat.kthvalue(flat.numel() - num + 1).values
    higher, equal = flat > least, flat == least
    mask = higher | (equal & (equal.cumsum(0) <= num - higher.sum()))
    return mask.view(scores.shape)


def subnetwork(weights: Tensor, scores: Tensor, capacity: float) -> Tensor:
    """Return the best-scored weights, and zeros elsewhere.

    The gradient of a weight is its own if it is used, else 0; that of a score is the gradient of the masked weight
    times the weight, as if the mask were the scores (straight through, [Kang2022]_).
    """
    masked = torch.where(best_scored(scores, capacity), weights, 0.0)
    return masked + (scores - scores.detach()) * weights.detach()  # the second term is exactly 0


def frozen(model: Model) -> dict[str, Tensor]:
    """Return masks of the weights that some task uses, M, by flat name; they get no gradient ([Kang2022]_)."""
    union: dict[str, Tensor] = {}
    for own in model.own.values():
        for name, mask in part_of(own, "mask").items():
            union[name] = union[name] | mask if name in union else mask
    return union


@dataclass(eq=False)
class _WSNPhase(NetworkPhase):
    method: WSN

    def scale(self, path: Path) -> float:
        return self.method.score_rate if str(path[0]).startswith("score.") else 1.0

    def answer(self, weights: Named, dropout: torch.Generator | None = None) -> Callable[[Tensor], Tensor]:
        scores = part_of(weights, "score").items()
        masked = {name: subnetwork(weights[name], score, self.method.capacity) for name, score in scores}
        return super().answer({**weights, **masked}, dropout)


def _initial_scores(setup: Setup) -> dict[str, Tensor]:
    """Uniform within 1 / sqrt(fan-in) of 0, as the authors' code starts them; on the CPU."""
    scores = {}
    for name, shape in kernels(setup.net).items():
        uniform = torch.rand(shape, generator=setup.generator("score", name)) * 2 - 1
        scores[f"score.{name}"] = uniform / math.sqrt(math.prod(shape[1:]))
    return scores


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
        trained: PhaseResult = yield _PackNetPhase(task, before, start, title="training", fixed=fixed)

        weights = trained.kept(setup.training.restore_best).weights
        masks = {name: self.kept(weights[name], earlier.get(name)) for name in kernels(setup.net)}
        fitted: PhaseResult = yield _PackNetPhase(
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
class _PackNetPhase(NetworkPhase):
    masks: Named = field(default_factory=dict)
    """Of the weights that are used, by name, once the layers are pruned."""
    title: str = ""
    goes_on: bool = False

    def answer(self, weights: Named, dropout: torch.Generator | None = None) -> Callable[[Tensor], Tensor]:
        return super().answer(masked(weights, self.masks), dropout)
