"""Starts of a task with weights that a test chooses, the loop over one, and a search followed to its end."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from learner.fixture import tiny_task
from torch import Tensor

from lasem.nets import Net
from lasem.records import EpochRecord
from lasem.search import AbstractSelection, MixturePhase, Selected
from lasem.sharing import AbstractSharing
from lasem.space import Space
from lasem.training import LayerWeights, Loop, TaskStart, TaskWeights, TrainingConfig, follow, loop
from lasem.tree import pack

CPU = torch.device("cpu")
NEVER: dict[str, Any] = {"first_task": "search", "commit_probability": 1.01, "commit_share": 1.0}
"""Settings of EM and deep EM that search for a first task too, and never commit."""


def random_weights(net: Net, sharing: Any, configurations: Any, num_classes: int, dtype: torch.dtype) -> TaskWeights:
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


def start_with(
    net: Net,
    sharing: AbstractSharing,
    space: Space,
    config: Any = None,
    *,
    task: Any = None,
    dtype: Any = torch.float32,
    **others: Any,
) -> TaskStart:
    """A start from random weights; ``others`` are its other fields."""
    task = task or tiny_task(shape=net.image_shape)
    config = config or TrainingConfig(epochs=4, batch_size=5)
    weights = random_weights(net, sharing, tuple(space), task.num_classes, dtype)
    return TaskStart(net, sharing, config, task, space, weights, **{"fresh_weights": {}, "device": CPU, **others})


def loop_over(phase: Any) -> Loop[Any]:
    return Loop(phase, seeds=(1, 2), device=CPU)


def loop_of(net: Net, sharing: AbstractSharing, search: Any, space: Space, *arguments: Any, **others: Any) -> Loop[Any]:
    """Over all that a search weighs; the other arguments are those of ``start_with``."""
    return loop_over(MixturePhase(search, start_with(net, sharing, space, *arguments, **others)))


def train(loop: Loop[Any], epochs: int | None = None) -> list[EpochRecord]:
    """So many epochs, or all that are left."""
    records: list[EpochRecord] = []
    while not loop.finished and len(records) != epochs:
        records.append(loop.run_epoch()[0])
    return records


def stored(loop: Loop[Any]) -> tuple[dict[str, Tensor], Any]:
    """The state as a checkpoint has it."""
    tensors, plain = pack(loop.state())
    return tensors, json.loads(json.dumps(plain))


def run(search: AbstractSelection, start: TaskStart, seeds: tuple[int, int] = (3, 1)) -> tuple[Selected, Any]:
    """What a search comes to, and the records of its epochs."""
    records: list[EpochRecord] = []
    found = follow(
        search.plan(start),
        seeds=seeds,
        epochs_before=0,
        device=CPU,
        on_epoch=lambda record, *_: records.append(record),
    )
    return found, records


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
