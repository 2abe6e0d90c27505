"""The plan of searches that train their candidates apart from each other: one phase for each."""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch

from lasem.errors import ConfigError
from lasem.search import AbstractTrials, Fixed
from lasem.training.phase import EpochSummary, PhaseResult
from lasem.training.plan import Plan
from lasem.training.selection import Selected, plan_of, selected
from lasem.training.task_start import TaskStart
from lasem.training.weighing import MixturePhase


@final
class Trial(MixturePhase):
    """The training of one candidate: what ``Fixed`` does with it, from the start that all candidates have.

    A subclass, for a wrapper would hand on a dozen methods to say two things of its own.
    """

    seeds_of = 0  # the same order of images and the same dropout for every candidate, and for Fixed

    def __init__(self, problem: TaskStart, position: int) -> None:
        """Start before the first epoch.

        Args:
            problem: the task, and the start of all candidates.
            position: of the candidate in the problem's space.
        """
        configuration = problem.space[position]
        super().__init__(Fixed(str(configuration)), problem.only(configuration))
        self.title = str(configuration) if len(problem.space) > 1 else ""
        self.position = self.leader = position
        self._num_candidates = len(problem.space)

    def summary(self) -> EpochSummary:
        """The candidate; the probability is 1 for the best of those before it (at first itself), 0 for all others."""
        probabilities = tuple(float(position == self.leader) for position in range(self._num_candidates))
        return EpochSummary(super().summary().configuration, probabilities)

    def outcome(self) -> dict[str, Any]:
        """Of ``MixturePhase``, counted in the task's space."""
        return super().outcome() | {"configuration": self.position}


@plan_of.register
def _(search: AbstractTrials, problem: TaskStart) -> Plan[Selected]:
    # its own source: no other random number of the task is drawn from the seed with a spawn key
    seed = np.random.SeedSequence(problem.seed, spawn_key=(0,)).generate_state(1)
    generator = torch.Generator().manual_seed(int(seed[0]))
    tried: dict[int, float] = {}
    best: tuple[Trial, PhaseResult, int] | None = None
    num_epochs = 0
    while candidates := search.propose(problem.space, dict(tried), generator):
        if len({*candidates, *tried}) < len(candidates) + len(tried):
            raise ConfigError(f"{type(search).__name__}.propose must not give a candidate twice; got {candidates}.")
        for position in candidates:
            trial = Trial(problem, position)
            leader = trial if best is None else best[0]
            trial.leader = leader.position
            trial.forgets = tuple(i for i, other in enumerate(tried) if other != leader.position)
            fitted = yield trial
            tried[trial.position] = fitted.best.valid_accuracy
            if search.best(problem.space, dict(tried)) == trial.position:
                best = trial, fitted, num_epochs
            num_epochs += fitted.num_epochs
    if best is None:
        raise ConfigError(f"{type(search).__name__}.propose must give at least one candidate; it gave none.")
    _, fitted, epochs_before = best
    return selected(problem, fitted, epochs_before=epochs_before, num_epochs=num_epochs)
