"""A loop over LASEM's phase with weights that a test chooses."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, final

import pytest
import torch
from learner.fixture import tiny_task
from torch import Tensor

from lasem.data import Task
from lasem.nets import Net
from lasem.records import EpochRecord
from lasem.search import AbstractSearch, MixturePhase
from lasem.sharing import AbstractSharing
from lasem.space import Configuration, Space
from lasem.training import FreshWeights, LayerWeights, Loop, TaskStart, TaskWeights, TrainingConfig, loop
from lasem.tree import pack


def random_weights(
    net: Net, sharing: AbstractSharing, configurations: Sequence[Configuration], num_classes: int, dtype: torch.dtype
) -> TaskWeights:
    """Random values of every part that a configuration uses."""
    generator = torch.Generator().manual_seed(5)

    def fill(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
        return {k: 0.4 * torch.randn(shape, dtype=dtype, generator=generator) for k, shape in shapes.items()}

    layers = []
    for i, block in enumerate(net.blocks):
        transfers, learns = any(c[i] for c in configurations), any(not c[i] for c in configurations)
        layers.append(
            LayerWeights(
                fill(sharing.shared_shapes(block)) if transfers else {},
                fill(sharing.task_shapes(block)) if transfers else {},
                fill(block.shapes) if learns else {},
            )
        )
    return TaskWeights(tuple(layers), fill(net.head.shapes(num_classes)))


def seconds_pass(patch: pytest.MonkeyPatch, *, in_loss: float, in_accuracy: float) -> None:
    """Give the loop a clock that goes on in every call of these two alone, by so many seconds."""
    now = [100.0]

    def taking(seconds: float, original: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            now[0] += seconds
            return original(*arguments)

        return timed

    patch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    patch.setattr(MixturePhase, "loss", taking(in_loss, MixturePhase.loss))
    patch.setattr(MixturePhase, "accuracy", taking(in_accuracy, MixturePhase.accuracy))


@final
class WeighingLoop:
    """The phase and the loop that trains it."""

    def __init__(self, phase: MixturePhase[Any]) -> None:
        self.phase = phase
        self.loop = Loop(phase, seeds=(1, 2), device=torch.device("cpu"))
        self.run_epoch, self.load_state = self.loop.run_epoch, self.loop.load_state

    @property
    def weights(self) -> TaskWeights:
        return self.loop.weights

    def state(self) -> tuple[dict[str, Tensor], Any]:
        """As a checkpoint has it."""
        tensors, plain = pack(self.loop.state())
        return tensors, json.loads(json.dumps(plain))

    def train(self) -> list[EpochRecord]:
        """All epochs that are left."""
        records = []
        while not self.loop.finished:
            records.append(self.run_epoch()[0])
        return records


def loop_of(
    net: Net,
    sharing: AbstractSharing,
    search: AbstractSearch[Any],
    space: Space,
    config: TrainingConfig | None = None,
    *,
    task: Task | None = None,
    dtype: torch.dtype = torch.float32,
    fresh_weights: FreshWeights | None = None,
) -> WeighingLoop:
    task = task or tiny_task(shape=net.image_shape)
    config = config or TrainingConfig(epochs=4, batch_size=5)
    weights = random_weights(net, sharing, tuple(space), task.num_classes, dtype)
    start = TaskStart(net, sharing, config, task, space, weights, fresh_weights or {}, torch.device("cpu"))
    return WeighingLoop(MixturePhase(search, start))
