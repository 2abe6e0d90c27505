"""Logistic regression on an image's pixels, a model for each task: what every other method should beat."""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

from lasem.data import Split, Task
from lasem.methods.method import AbstractMethod, Learned, Setup
from lasem.methods.model import Model
from lasem.methods.plain import NetworkPhase
from lasem.nets import AbstractNet
from lasem.settings import Settings
from lasem.training import EpochSummary, Named, Plan, TrainingConfig, evaluation_batch
from lasem.training.kept import fit_head


@final
@dataclass(frozen=True, kw_only=True)
class Logistic(Settings, AbstractMethod):
    """Multinomial logistic regression on standardised pixels; validation images choose the penalty.

    The network is not used, and no task knows of another one.
    """

    name: ClassVar[str] = "logistic"
    keeps: ClassVar[bool] = True

    def check(self, net: AbstractNet, training: TrainingConfig) -> None:
        """Take any network, for none is used."""

    def plan(self, model: Model, task: Task, setup: Setup) -> Plan[Learned]:
        start, loss, _ = fit_head(*_whole(task.train), *_whole(task.valid), task.num_classes, setup.training)
        phase = _LinearPhase(task, setup, start)
        phase.solved = loss
        fitted = yield phase
        return Learned.of(
            setup, fitted, lambda snapshot: model.having(own={**model.own, task.name: dict(snapshot.weights)})
        )

    def logits(self, net: Any, model: Model, name: str, x: Tensor) -> Tensor:
        return _linear(model.own[name], x)

    def transferred(self, net: Any) -> str:
        return "S" * int(net.depth)


class _LinearPhase(NetworkPhase):
    """Weights that are at their best from the start."""

    def answer(self, weights: Named, dropout: torch.Generator | None = None) -> Any:
        return partial(_linear, weights)

    def summary(self) -> EpochSummary:
        return EpochSummary("S" * self.setup.net.depth)


def _linear(weights: Named, x: Tensor) -> Tensor:
    return F.linear(x.flatten(1), weights["weight.0"], weights["bias.0"])


def _whole(split: Split) -> tuple[Tensor, Tensor]:
    """Return all images of a split, shape (N, values), and their labels, on the CPU."""
    parts = split.batches(evaluation_batch(split.images.shape), device=torch.device("cpu"))
    return torch.cat([x.flatten(1) for x, _ in parts]), split.labels
