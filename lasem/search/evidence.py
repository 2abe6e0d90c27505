"""LASEM's search by evidence: configurations are weighed by images that they were not trained on.

The task's labelled images are divided into K folds. For each fold the M-step trains the mixture of all configurations
on the other folds, a configuration drawn from the prior pi for each mini-batch, and the E-step scores every one on the
fold. With ell_n(c) = log p(y_n | x_n, c) of the N images, each from the training that has not seen it::

    q(c) proportional to pi(c) exp(tau sum_n ell_n(c))                     tau: images do not count as independent
    se(c, c') = sqrt(N) std_n(ell_n(c) - ell_n(c'))                        of a difference of two sums

The task gets the configuration that owns least among those at most some standard errors below the likeliest one, and
trains it from the start. Log-likelihoods of held-out images tell configurations apart where accuracies do not: with 30
images an accuracy's standard error is 9 points. Taking the simplest model within one standard error is [Breiman1984]_'s
rule.

.. [Breiman1984] L. Breiman, J. Friedman, R. Olshen, C. Stone. Classification and Regression Trees. 1984. Section 3.4.3.
.. [Lee2021] S. Lee, S. Behpour, E. Eaton. Sharing Less is More: Lifelong Learning in Deep Networks with Selective Layer
   Transfer. ICML 2021. The posterior over configurations, and the M-step by it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, final

import numpy as np
import torch
from torch import Tensor

from lasem.data import Split
from lasem.search.abstract import GroupedSelection, Selected, selected
from lasem.search.mixture import Mixture, evaluate, log_likelihood
from lasem.search.weighing import AbstractSearch, Fixed, MixturePhase, fine_tuned
from lasem.settings import Range
from lasem.training import Plan, TaskStart, TaskWeights, evaluation_batch
from lasem.training.kept import prepared

_PENALTY = 0.1
"""Inverse penalty of a fold's first head: no image chooses it, for those that could are the ones that are scored."""


@final
@dataclass(frozen=True, kw_only=True)
class Evidence(GroupedSelection):
    """EM whose likelihood is that of images outside of the training, by cross-fitting; see the module."""

    name: ClassVar[str] = "evidence"
    most_groups: ClassVar[int | None] = 8  # 256 configurations, each scored on every image

    folds: Annotated[int, Range(least=2)] = 2
    """Parts of the labelled images, each of which is scored by a training on the others; at least 2."""
    epochs_share: Annotated[float, Range(above=0, most=1)] = 0.25
    """Share of the task's epochs that each of these trainings takes; in (0, 1]."""
    step: Annotated[float, Range(above=0)] = 0.5
    """Their step size, relative to ``learning_rate``; positive."""
    errors: Annotated[float, Range(least=0)] = 1.0
    """How many standard errors the evidence of the configuration that owns least may be below the best; 0: the best."""
    temperature: Annotated[float, Range(above=0)] = 0.3
    """tau; changes the posterior that is shown, and not what is chosen."""

    def plan(self, start: TaskStart) -> Plan[Selected]:
        if start.space.size == 1:
            return (yield from Fixed(str(start.space[0])).plan(start))
        images = start.task.train.joined(start.task.valid) or start.task.train
        scores, num_epochs = torch.zeros(start.space.size, len(images)), 0
        folds = self._folds(images.labels, start.seed)
        for number in range(self.folds):
            phase = _FoldPhase(self, start, images, folds, number)
            result = yield phase
            scores[:, folds == number] = phase.scores(result.last.weights)
            num_epochs += result.num_epochs
        owned = torch.tensor([_num_owned(start.only(c).weights) for c in start.space])
        chosen = start.space[self.choose(scores, owned)]
        search, only = Fixed(str(chosen)), start.only(chosen)
        if only.net.pretrained:
            ready = prepared(only)
            return (yield from fine_tuned(search, only, ready, phases_before=self.folds, epochs_before=num_epochs))
        result = yield MixturePhase(search, only)
        return selected(only, result, epochs_before=num_epochs, num_epochs=num_epochs + result.num_epochs)

    def _folds(self, labels: Tensor, seed: tuple[int, ...]) -> Tensor:
        """Return each image's fold, shape (N,): of every class as many as possible in each."""
        # its own source: no other random number of the task is drawn from the seed with this spawn key
        own = np.random.SeedSequence(seed, spawn_key=(4,)).generate_state(1)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(int(own[0])))
        order = order[labels.cpu()[order].argsort(stable=True)]
        folds = torch.empty(len(labels), dtype=torch.int64)
        folds[order] = torch.arange(len(labels)) % self.folds
        return folds

    def choose(self, scores: Tensor, owned: Tensor) -> int:
        """Return the position of the configuration that a task gets.

        Args:
            scores: log-likelihood of each image that the configuration was not trained on, shape (C, N).
            owned: numbers that the task would own, shape (C,).
        """
        best = int(scores.sum(dim=1).argmax())
        behind = scores[best] - scores
        error = behind.std(dim=1) * math.sqrt(scores.shape[1])
        near = behind.sum(dim=1) <= self.errors * error
        return int(torch.where(near, owned, owned.max() + 1).argmin())


def _num_owned(weights: TaskWeights) -> int:
    """Return the numbers in weights that are a task's own."""
    parts = [part for layer in weights.layers for part in (layer.factors, layer.specific)]
    return sum(tensor.numel() for part in parts for tensor in part.values())


@final
class _FoldPhase(MixturePhase["_DrawnState"]):
    """Training of the mixture on all folds but one, which validates."""

    def __init__(self, search: Evidence, start: TaskStart, images: Split, folds: Tensor, number: int) -> None:
        train, held_out = images.only(folds != number), images.only(folds == number)
        config, rate = start.config, search.step * start.config.learning_rate
        epochs = max(1, round(search.epochs_share * config.epochs))
        config = replace(config, epochs=epochs, learning_rate=rate, patience=0)
        task = replace(start.task, train=train, valid=held_out)
        start = prepared(replace(start, config=config, task=task, strength=_PENALTY))
        super().__init__(_Drawn(), start, title=f"evidence {number + 1} of {search.folds}")

    @torch.no_grad()
    def scores(self, weights: TaskWeights) -> Tensor:
        """Return the log-likelihood of each image of the fold under each configuration, shape (C, n).

        Where nothing that is transferred changes, the configuration that transfers all is what it was at the start.
        """
        start, size = self.start, max(1, evaluation_batch(self.task.image_shape) // 4)
        mixture = Mixture(start.net, start.sharing, tuple(start.space))
        frozen = Mixture(start.net, start.sharing, (start.space[start.space.size - 1],))
        found = []
        for x, labels in self.task.valid.batches(size, device=start.device):
            found.append(log_likelihood(evaluate(mixture, weights, x), labels))
            if start.warmup > 0 and start.sharing.keeps(start.net):  # the head was fitted
                found[-1][-1:] = log_likelihood(evaluate(frozen, start.weights, x), labels)
        return torch.cat(found, dim=1).cpu()


@final
@dataclass(frozen=True)
class _DrawnState:
    num_configurations: int
    position: int = 0
    """Of the configuration that the mini-batch trains."""


@final
@dataclass(frozen=True)
class _Drawn(AbstractSearch[_DrawnState]):
    """Trains one configuration in each mini-batch, drawn evenly; weighs none."""

    name: ClassVar[str] = "drawn"

    def init(self, num_configurations: int) -> _DrawnState:
        return _DrawnState(num_configurations)

    def begin_batch(self, state: _DrawnState, generator: torch.Generator) -> _DrawnState:
        position = int(torch.randint(state.num_configurations, (1,), generator=generator))
        return replace(state, position=position)

    def candidates(self, state: _DrawnState, num_configurations: int) -> tuple[int, ...]:
        return (state.position,)

    def step(self, state: _DrawnState, log_likelihood: Tensor) -> tuple[Tensor, _DrawnState]:
        return torch.ones(1, device=log_likelihood.device), state

    def best(self, state: _DrawnState) -> int:
        """Return the configuration that owns all, which is what the records show."""
        return 0
