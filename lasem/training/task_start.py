"""One task and everything that a search starts from: what the phases of sharing and search are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import final

import torch
from torch import Tensor

from lasem.data import Task
from lasem.nets import AbstractNet
from lasem.sharing import AbstractSharing
from lasem.space import Configuration, Space
from lasem.training.config import TrainingConfig
from lasem.training.protection import SharedProtection
from lasem.training.task_weights import TaskWeights

FreshWeights = Mapping[tuple[int, bool], Mapping[str, Tensor]]
"""Fresh plain weights for each (layer, whether transferred) where the task's own part was taken over from another task,
as task-specific weights (False) or as a mechanism's part (True)."""


@final
@dataclass(frozen=True)
class TaskStart:
    """One task, and everything that a search starts from."""

    net: AbstractNet
    sharing: AbstractSharing
    config: TrainingConfig
    task: Task
    space: Space
    """The configurations to choose from."""
    weights: TaskWeights
    """Start of whatever some configuration of the space uses."""
    fresh_weights: FreshWeights
    device: torch.device
    seed: tuple[int, ...] = ()
    """Of the random numbers of a search: the learner's seed and the task's position."""
    protection: SharedProtection = field(default_factory=SharedProtection)
    """What holds shared knowledge that earlier tasks use."""

    def only(self, configuration: Configuration) -> TaskStart:
        """The same with one configuration to train, from the same start."""
        layers = tuple(
            replace(layer, specific={}) if transferred else replace(layer, shared={}, factors={})
            for layer, transferred in zip(self.weights.layers, configuration, strict=True)
        )
        weights = TaskWeights(layers, self.weights.head)
        return replace(self, space=Space((configuration,)), weights=weights)
