"""The plan of searches that train their candidates apart from each other: one phase for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from lasem.errors import ConfigError
from lasem.search import AbstractTrials, Fixed
from lasem.training.phase import AbstractPhase, Batch, Fitted, Named, Seen, Step, Together
from lasem.training.plan import Plan
from lasem.training.selection import Problem, Selected, plan_of, selected, weighing


@final
class Trial(AbstractPhase):
    """The training of one candidate: what ``Fixed`` does with it, from the start that all candidates have.

    ``outcome`` is that of ``Weighing``, with the candidate's position in the task's space.
    """

    seeds_of = 0  # the same order of images and the same dropout for every candidate, and for Fixed

    def __init__(self, problem: Problem, position: int) -> None:
        """Start before the first epoch.

        Args:
            problem: the task, and the start of all candidates.
            position: of the candidate in the problem's space.
        """
        configuration = problem.space[position]
        self.task, self.config = problem.task, problem.config
        self.title = str(configuration) if len(problem.space) > 1 else ""
        self.position = self.leader = position
        self._num_configurations = len(problem.space)
        self._candidate = weighing(Fixed(str(configuration)), problem.only(configuration))

    def initial(self) -> dict[str, Tensor]:
        """See Weighing, as for all that is not explained here."""
        return self._candidate.initial()

    def loss(self, weights: Named, batch: Batch, dropout: torch.Generator) -> Tensor:
        """The candidate's."""
        return self._candidate.loss(weights, batch, dropout)

    def accuracy(self, weights: Named) -> float:
        """The candidate's."""
        return self._candidate.accuracy(weights)

    @property
    def num_valid(self) -> int:
        """The candidate's."""
        return self._candidate.num_valid

    def scale(self, name: str) -> float:
        """The candidate's."""
        return self._candidate.scale(name)

    def batches(self, device: torch.device, order: torch.Generator) -> Iterator[Batch]:
        """The candidate's."""
        return self._candidate.batches(device, order)

    @property
    def num_batches(self) -> int:
        """The candidate's."""
        return self._candidate.num_batches

    def begin_epoch(self, weights: Named, epoch: int, learning_rate: float) -> None:
        """The candidate's."""
        self._candidate.begin_epoch(weights, epoch, learning_rate)

    def change_gradients(self, weights: Named, step: Step) -> None:
        """The candidate's."""
        self._candidate.change_gradients(weights, step)

    def after_step(self, weights: Named, step: Step) -> None:
        """The candidate's."""
        self._candidate.after_step(weights, step)

    def seen(self) -> Seen:
        """The candidate; the probability is 1 for the best of those before it (at first itself), 0 for all others."""
        probabilities = tuple(float(position == self.leader) for position in range(self._num_configurations))
        return Seen(self._candidate.seen().configuration, probabilities)

    def outcome(self) -> dict[str, Any]:
        """The candidate's, counted in the task's space."""
        return self._candidate.outcome() | {"configuration": self.position}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The candidate's."""
        return self._candidate.state()

    def load_state(self, tensors: Named, plain: Mapping[str, Any]) -> None:
        """The candidate's."""
        self._candidate.load_state(tensors, plain)


@plan_of.register
def _(search: AbstractTrials, problem: Problem) -> Plan[Selected]:
    # its own source: no other random number of the task is drawn from the seed with a spawn key
    seed = np.random.SeedSequence(problem.seed, spawn_key=(0,)).generate_state(1)
    generator = torch.Generator().manual_seed(int(seed[0]))
    tried: dict[int, float] = {}
    best: tuple[Trial, Fitted, int] | None = None
    num_epochs = 0
    while candidates := search.propose(problem.space, dict(tried), generator):
        if len({*candidates, *tried}) < len(candidates) + len(tried):
            raise ConfigError(f"{type(search).__name__}.propose must not give a candidate twice; got {candidates}.")
        trials = tuple(Trial(problem, position) for position in candidates)
        together = Together(trials, search.workers) if search.workers > 1 and len(trials) > 1 else None
        for trial in trials:
            leader = trial if best is None else best[0]
            trial.leader, trial.together = leader.position, together
            trial.forgets = tuple(i for i, position in enumerate(tried) if position != leader.position)
            fitted = yield trial
            tried[trial.position] = fitted.best.valid_accuracy
            if search.best(problem.space, dict(tried)) == trial.position:
                best = trial, fitted, num_epochs
            num_epochs += fitted.num_epochs
    if best is None:
        raise ConfigError(f"{type(search).__name__}.propose must give at least one candidate; it gave none.")
    _, fitted, epochs_before = best
    return selected(problem, fitted, epochs_before=epochs_before, num_epochs=num_epochs)
