"""Learning without forgetting (LwF): on a new task's images, earlier tasks' heads go on answering as they did.

.. [Li2016] Z. Li, D. Hoiem. Learning without Forgetting. ECCV 2016.

No image of an earlier task is kept. A task is trained in two phases ([Li2016]_ Figure 3): first its head alone, then
the layers and all heads, by its labels and by what the earlier heads answered before.

The paper records these answers before the training. Here they are computed anew for each mini-batch, by the network as
it was, without dropout: that is the same, and holds for images that augmentation has changed too. The paper trains both
phases until they converge; here each has its share of the epochs. Its weight decay is ``TrainingConfig.weight_decay``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

from lasem.data import Task
from lasem.methods.method import AbstractShared, Learned, Setup
from lasem.methods.model import Model
from lasem.methods.plain import HeadsPhase, NetworkPhase, initial_head, initial_layers, model_of_heads, with_heads
from lasem.nets import as_float32
from lasem.settings import Range
from lasem.training import Batch, Named, PhaseResult, Plan


@final
@dataclass(frozen=True, kw_only=True)
class LwF(AbstractShared):
    """All layers shared, heads apart; loss CE + strength sum_k L_k over earlier heads k ([Li2016]_ equations 1 to 3).

    L_k is the cross-entropy between what head k answered before the task and what it answers now, both softened by the
    temperature.
    """

    name: ClassVar[str] = "lwf"
    rewrites: ClassVar[bool] = True

    strength: Annotated[float, Range(least=0)] = 1.0
    """Weight of the earlier heads' losses, the paper's lambda_o; not negative."""
    temperature: Annotated[float, Range(above=0)] = 2.0
    """What divides logits before the softmax in these losses, the paper's T; above 0."""
    warmup_share: Annotated[float, Range(above=0, below=1)] = 0.25
    """Share of a later task's epochs in which its head is trained alone; between 0 and 1. The paper does not say."""

    def plan(self, model: Model, task: Task, setup: Setup) -> Plan[Learned]:
        layers, head = model.shared or initial_layers(setup), initial_head(setup, task.num_classes)
        title, names = "", [*model.own, task.name]
        if model.own:
            alone, setup = setup.divided(self.warmup_share)
            warmed: PhaseResult = yield _WarmUp(task, alone, head, layers)
            head, title = warmed.kept(setup.training.restore_best).weights, "last"
        start = with_heads(layers, [*model.own.values(), head])
        fitted: PhaseResult = yield _Phase(task, setup, start, len(names), self, title)
        return Learned.of(setup, fitted, lambda snapshot: model_of_heads(snapshot.weights, names, {}))


def distillation(logits: Tensor, recorded: Tensor, temperature: float) -> Tensor:
    """Return - sum_i y'_i log z'_i for each image, shape (B,) ([Li2016]_ equations 2 and 3).

    y' are the recorded probabilities to the power of 1 / temperature, divided by their sum, and z' those of now: the
    softmax of logits / temperature.

    Args:
        logits: of now, shape (B, number of classes).
        recorded: of before, in the same shape.
        temperature: above 0.
    """
    targets = torch.softmax(as_float32(recorded) / temperature, dim=1)
    return F.cross_entropy(as_float32(logits) / temperature, targets, reduction="none")


@dataclass(eq=False)
class _WarmUp(NetworkPhase):
    """Trains the new head alone."""

    layers: Named
    title: str = "head"

    def answer(self, weights: Named, dropout: torch.Generator | None = None) -> Callable[[Tensor], Tensor]:
        return super().answer({**self.layers, **weights}, dropout)


@dataclass(eq=False)
class _Phase(HeadsPhase):
    method: LwF
    title: str = ""
    goes_on = True

    def loss(self, weights: Named, batch: Batch, dropout: torch.Generator) -> Tensor:
        *old, new = self.answers(weights, batch.x, self.num_tasks, dropout)
        with torch.no_grad():
            recorded = self.answers(self.start, batch.x, len(old)) if old else []
        loss = batch.cross_entropy(new)
        for logits, before in zip(old, recorded, strict=True):
            loss = loss + self.method.strength * batch.mean(distillation(logits, before, self.method.temperature))
        return loss
