"""How much each shared weight matters to a task that was learned."""

from __future__ import annotations

import torch
from torch import Tensor

from lasem.data import Task
from lasem.nets import AbstractNet
from lasem.sharing import AbstractSharing
from lasem.space import Configuration
from lasem.training import FisherKind, Named, TaskWeights, directions_of, part_of, squared_gradients

_MOST_IMAGES = 64


def shared_of(weights: TaskWeights, configuration: Configuration) -> dict[str, Tensor]:
    """The shared tensors of the layers that are transferred, by flat name as in ``TaskWeights.named``."""
    return {
        f"layer.{i}.shared.{name}": value
        for i, (layer, transferred) in enumerate(zip(weights.layers, configuration, strict=True))
        if transferred
        for name, value in layer.shared.items()
    }


def importances(
    net: AbstractNet,
    sharing: AbstractSharing,
    configuration: Configuration,
    weights: TaskWeights,
    task: Task,
    *,
    kind: FisherKind,
    draws: torch.Generator,
) -> dict[str, Tensor]:
    """Diagonal of the Fisher information of a task's answers in the shared weights, a mean over its training images.

    Args:
        net: the network.
        sharing: how shared knowledge becomes weights.
        configuration: the task's.
        weights: of the task, on one device; what is not shared is constant.
        task: gives the training images.
        kind: see ``FisherKind``.
        draws: source of the labels of kind ``sampled``, on the CPU.

    Returns:
        One tensor for each of ``shared_of``.
    """
    shared = shared_of(weights, configuration)
    if not shared:
        return {}

    def answer(shared: Named, x: Tensor) -> Tensor:
        for i, (block, own) in enumerate(zip(net.blocks, weights.layers, strict=True)):
            made = own.specific
            if configuration[i]:
                made = sharing.weights(block, part_of(shared, f"layer.{i}.shared"), own.factors)
            x = block.apply({**made, **own.statistics_of(block, str(configuration)[: i + 1])}, x)
        return net.head.apply(weights.head, x)

    total = {name: torch.zeros_like(value) for name, value in shared.items()}
    device = next(iter(weights.head.values())).device
    for x, labels in task.train.batches(_MOST_IMAGES, device=device):
        with torch.no_grad():
            directions = directions_of(answer(shared, x), labels, kind, draws)
        for name, squares in squared_gradients(answer, shared, x, directions).items():
            total[name] += squares
    return {name: value / len(task.train) for name, value in total.items()}
