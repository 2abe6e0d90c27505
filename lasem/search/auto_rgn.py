"""Auto-RGN: a task owns all layers, and the step size of each tensor goes by its relative gradient norm.

.. [Lee2023] Y. Lee, A. Chen, F. Tajwar, A. Kumar, H. Yao, P. Liang, C. Finn. Surgical Fine-Tuning Improves Adaptation
   to Distribution Shifts. ICLR 2023. Section 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Annotated, ClassVar, final

import torch
from torch import Tensor

from lasem.nets import AbstractNet
from lasem.search.abstract import AbstractSelection, Selected
from lasem.search.mixture import Mixture
from lasem.search.weighing import Fixed, TriedPhase, fine_tuned
from lasem.settings import Range
from lasem.space import Pattern, Space, listed
from lasem.training import Plan, Step, TaskStart, TaskWeights
from lasem.training.config import autocast
from lasem.tree import Path, flatten


@final
@dataclass(frozen=True, kw_only=True)
class AutoRGN(AbstractSelection):
    """Tunes all layers; each tensor's step size is multiplied by its ``relative_gradient_norms`` ([Lee2023]_).

    They are measured before every epoch. Normalisation layers stay as they start, as in the authors' program; the
    optimiser's state, which begins anew there in every epoch, goes on here. Where nothing is fine-tuned, as in the
    first task of a network that is not pretrained, all is trained as usual.
    """

    name: ClassVar[str] = "auto-rgn"

    num_batches: Annotated[int, Range(least=1)] = 5
    """Mini-batches over which the norms are averaged, as in the authors' program; at least 1."""
    steps: tuple[Annotated[float, Range(above=0)], ...] = (0.1, 1.0, 10.0)
    """What a task tries with a pretrained network, as multiples of ``learning_rate``, instead of
    ``TrainingConfig.steps``: the authors try 1e-5 to 1e-1, for only one tensor takes steps of the whole size."""

    def space(self, depth: int, task_index: int) -> Space:
        return listed([Pattern("none").of(depth)])

    def reason(self, net: AbstractNet, task_index: int) -> str:
        return f"search '{self.name}' lets every task own all layers, with a step size for each tensor"

    def plan(self, start: TaskStart) -> Plan[Selected]:
        if not (start.net.pretrained or start.fresh_weights):
            return (yield from Fixed("none").plan(start))
        start = replace(start, config=replace(start.config, steps=self.steps))
        return (yield from fine_tuned(partial(RGNPhase, self), start))


@final
class RGNPhase(TriedPhase):
    """Training of all layers, each tensor with a step size that changes from epoch to epoch."""

    def __init__(self, search: AutoRGN, start: TaskStart) -> None:
        """Start before the first epoch of a prepared start."""
        super().__init__(Fixed("none"), start)
        self._num_measured = search.num_batches
        self.scales: dict[Path, float] = {}
        """Of each tensor that is trained, in this epoch."""
        self._before: dict[Path, Tensor] = {}

    def begin_epoch(self, weights: TaskWeights, epoch: int, learning_rate: float) -> None:
        super().begin_epoch(weights, epoch, learning_rate)
        # its own source, for every epoch another: the training images keep their order, and there is no state to save
        batches = self.batches(self.start.device, self.start.generator(5, epoch))
        mixture = Mixture(self.start.net, self.start.sharing, tuple(self.start.space))
        flat = {path: tensor for path, tensor in flatten(weights).items() if tensor.requires_grad}
        moving = {path: tensor for path, tensor in flat.items() if not _normalises(path, flat)}
        gradients = []
        for batch in islice(batches, self._num_measured):
            with autocast(self.config.precision, self.start.device):
                loss = batch.cross_entropy(mixture.logits(weights, mixture.features(weights, batch.x))[0])
            gradients.append(torch.autograd.grad(loss, list(moving.values()), materialize_grads=True))
        norms = relative_gradient_norms(list(moving.values()), gradients)
        self.scales = {**dict.fromkeys(flat, 0.0), **dict(zip(moving, norms, strict=True))}

    def change_gradients(self, weights: TaskWeights, step: Step) -> None:
        flat = flatten(weights)
        self._before = {path: flat[path].detach().clone() for path in self.scales}

    def after_step(self, weights: TaskWeights, step: Step) -> None:
        """Go only a part of the optimiser's step: the same as a smaller step size, with each optimiser."""
        flat = flatten(weights)
        for path, scale in self.scales.items():
            flat[path].copy_(torch.lerp(self._before[path], flat[path], scale))


def _normalises(path: Path, flat: Mapping[Path, Tensor]) -> bool:
    """Return whether a tensor is a scale or a shift of single features: its layer has no matrix and no kernel."""
    weight = (*path[:-1], str(path[-1]).replace("bias", "weight"))
    return flat.get(weight, flat[path]).ndim < 2


@torch.no_grad()
def relative_gradient_norms(weights: Sequence[Tensor], gradients: Sequence[Sequence[Tensor]]) -> list[float]:
    """Return RGN = mean_b ||g_b|| / ||w|| of each tensor, divided by the largest: in [0, 1].

    A tensor of zeros has none; it gets 1, and does not count for the largest.

    Args:
        weights: w.
        gradients: g_b of each, for every mini-batch b.
    """
    size = torch.stack([w.norm() for w in weights])
    slope = torch.stack([torch.stack([g.norm() for g in of_batch]) for of_batch in gradients]).mean(dim=0)
    relative = torch.where(size > 0, slope / size, 0.0)
    largest = relative.max().clamp_min(torch.finfo(relative.dtype).tiny)  # where all are 0 they stay so
    found: list[float] = torch.where(size > 0, relative / largest, 1.0).tolist()
    return found
