"""Your own method is one class: what it keeps between tasks, the phases in which it learns one, and its answers.

This one learns all layers with the first task, and later only heads. Run this file, or name the class on the command
line: lasem run --method 06_your_own_method.FirstFeatures
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lasem import DigitsReader, TrainingConfig, for_images
from lasem.data import Task
from lasem.learner import Learner
from lasem.methods import AbstractMethod, Learned, Model, Setup
from lasem.methods.plain import NetworkPhase, initial_head, initial_layers, run, shared_and_own
from lasem.nets import Net
from lasem.training import Named, PhaseResult, Plan, Snapshot


@dataclass(eq=False)
class HeadPhase(NetworkPhase):
    """Trains what it starts from, after layers that stay as they are."""

    frozen: Named

    def answer(self, weights: Named, dropout: torch.Generator | None = None):
        return super().answer({**self.frozen, **weights}, dropout)


@dataclass(frozen=True, kw_only=True)
class FirstFeatures(AbstractMethod):
    """All tasks use the layers of the first one; each owns a head."""

    name: ClassVar[str] = "first-features"
    training: ClassVar = {"learning_rate": 0.002}  # where the defaults do not suit it

    def plan(self, model: Model, task: Task, setup: Setup) -> Plan[Learned]:
        fresh = {} if model.shared else initial_layers(setup)
        fitted: PhaseResult = yield HeadPhase(
            task, setup, {**fresh, **initial_head(setup, task.num_classes)}, frozen=model.shared
        )

        def made(snapshot: Snapshot) -> Model:
            layers, head = shared_and_own(snapshot.weights)
            return model.having(shared=model.shared or layers, own={**model.own, task.name: head})

        return Learned.of(setup, fitted, made)

    def logits(self, net: Net, model: Model, name: str, x: Tensor) -> Tensor:
        return run(net, {**model.shared, **model.own[name]}, x)


if __name__ == "__main__":
    stream = DigitsReader(num_tasks=3).open(seed=0)
    training = TrainingConfig(**FirstFeatures.training, epochs=8)
    learner = Learner(for_images(stream[0].image_shape), FirstFeatures(), training=training)
    for task in stream:
        print(task.name, learner.learn(task).peak_accuracy, learner.num_parameters(task.name))
    print([learner.accuracy(task.name, task.test) for task in stream])  # as they were: the layers never change
