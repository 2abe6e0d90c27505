"""Your own search is one class: how it weighs configurations on each mini-batch, and the state that it keeps.

Run this file, or name the class: lasem run --search 05_your_own_search.MovingPrior --search.rate 0.05
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, final

import torch
from torch import Tensor

import lasem
from lasem.search import AbstractSearch
from lasem.settings import Range


@final
@dataclass(frozen=True)
class MovingState:
    """Tensors and plain values; it is saved after each epoch."""

    prior: Tensor
    streak: int = 0
    """Mini-batches in a row with the same leading configuration."""


@final
@dataclass(frozen=True, kw_only=True)
class MovingPrior(AbstractSearch[MovingState]):
    """The prior follows the posterior as a moving mean; the search ends when its leader has led for long."""

    name: ClassVar[str] = "moving-prior"

    rate: Annotated[float, Range(above=0, most=1)] = 0.1
    """How far the prior moves with each mini-batch."""
    patience: Annotated[int, Range(least=1)] = 20
    """Mini-batches in a row that a configuration must lead."""

    def init(self, num_configurations: int) -> MovingState:
        return MovingState(torch.full((num_configurations,), 1 / num_configurations, dtype=torch.float64))

    def step(self, state: MovingState, log_likelihood: Tensor) -> tuple[Tensor, MovingState]:
        posterior = torch.softmax(state.prior.log() + log_likelihood.to(state.prior).sum(dim=1), dim=0)
        prior = torch.lerp(state.prior, posterior, self.rate)
        same = int(prior.argmax()) == self.best(state)
        return posterior, MovingState(prior, state.streak + 1 if same else 0)

    def best(self, state: MovingState) -> int:
        return int(state.prior.argmax())

    def prior(self, state: MovingState) -> Tensor:
        return state.prior

    def commits(self, state: MovingState, epoch: int, num_epochs: int) -> bool:
        return state.streak >= self.patience


if __name__ == "__main__":
    stream = lasem.DigitsReader(num_tasks=2).open(seed=0)
    net = lasem.for_images(stream[0].image_shape)
    learner = lasem.Learner(net, search=MovingPrior(rate=0.05), training=lasem.TrainingConfig(epochs=10))
    for task in stream:
        record = learner.learn(task)
        print(f"{task.name}: {record.configuration}, test accuracy {record.peak_accuracy:.3f}, ", end="")
        print(f"the search ended in epoch {record.commit_epoch}")
