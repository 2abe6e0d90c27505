"""Your own sharing mechanism is one class: what all tasks share, what a task owns, and how both make weights."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

import lasem
from lasem.nets import AbstractBlock, Weights
from lasem.sharing import AbstractSharing


@final
@dataclass(frozen=True)
class ScaledSharing(AbstractSharing):
    """A task owns one factor for each output channel of the shared kernel, and the bias."""

    name: ClassVar[str] = "scaled"

    def shared_shapes(self, block: AbstractBlock) -> dict[str, tuple[int, ...]]:
        return {"weight": block.shapes["weight"]}

    def task_shapes(self, block: AbstractBlock) -> dict[str, tuple[int, ...]]:
        return {"scale": block.shapes["bias"], "bias": block.shapes["bias"]}

    def initial_shared(self, block: AbstractBlock, plain: Weights, generator: torch.Generator) -> dict[str, Tensor]:
        return {"weight": plain["weight"]}

    def initial_task(
        self, block: AbstractBlock, shared: Weights, plain: Weights, generator: torch.Generator
    ) -> dict[str, Tensor]:
        return {"scale": torch.ones(block.shapes["bias"]), "bias": plain["bias"]}

    def weights(self, block: AbstractBlock, shared: Weights, task: Weights) -> dict[str, Tensor]:
        scale = task["scale"].view(-1, *(1,) * (shared["weight"].ndim - 1))
        return {"weight": shared["weight"] * scale, "bias": task["bias"]}


stream = lasem.DigitsReader(num_tasks=2).open(seed=0)
net = lasem.for_images(stream[0].image_shape)
learner = lasem.Learner(net, sharing=ScaledSharing(), training=lasem.TrainingConfig(epochs=10))
for task in stream:
    record = learner.learn(task)
    print(f"{task.name}: {record.configuration}, test accuracy {record.peak_accuracy:.3f}, ", end="")
    print(f"{record.parameters_added} of {record.parameters_total} parameters are its own")
