"""MNTDP-D: the first layers of one earlier task as they are, the others new; validation images say how many.

The earlier task is the one among whose features the nearest neighbours of the validation images have their classes most
often. Each number of its first layers is then trained with each of some step sizes and penalties, apart from the
others, and the one with the highest validation accuracy stays ([Veniat2021]_, section 4.2 and appendix). What is reused
does not change, and earlier tasks answer as before.

.. [Veniat2021] T. Veniat, L. Denoyer, M. Ranzato. Efficient Continual Learning with Modular Networks and Task-Driven
   Priors. ICLR 2021.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

from lasem.errors import ConfigError
from lasem.search.abstract import GroupedSelection, Selected, selected
from lasem.search.sources import features, reusing, some
from lasem.search.weighing import Fixed, MixturePhase
from lasem.settings import Range
from lasem.space import Space, prefixes
from lasem.training import PhaseResult, Plan, TaskStart, TaskWeights


@final
@dataclass(frozen=True, kw_only=True)
class MNTDP(GroupedSelection):
    """Paths of MNTDP-D; needs ``protect`` freeze and sharing ``hps``, so that what earlier tasks know can be reused."""

    name: ClassVar[str] = "mntdp"
    reuses: ClassVar[bool] = True
    most_groups: ClassVar[int | None] = None

    neighbours: Annotated[int, Range(least=1)] = 15
    """Training images that vote for the class of a validation image."""
    learning_rates: tuple[Annotated[float, Range(above=0)], ...] = (1e-2, 1e-3)
    """Step sizes to try."""
    weight_decays: tuple[Annotated[float, Range(least=0)], ...] = (0.0, 1e-4, 1e-5)
    """L2 penalties to try with each step size."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.learning_rates and self.weight_decays):
            raise ConfigError("MNTDP needs a learning rate and a weight decay to try; got none.")

    def choices(self, groups: tuple[int, ...]) -> Space:
        return prefixes(groups)

    def plan(self, start: TaskStart) -> Plan[Selected]:
        best: tuple[TaskStart, PhaseResult[TaskWeights]] | None = None
        best_phase, num_phases = 0, 0
        if start.space.size > 1:
            start = replace(reusing(start, self.source(start), fresh=True), is_prepared=True)  # no head is fitted
        for configuration in start.space:
            only = start.only(configuration)
            for rate in self.learning_rates:
                for decay in self.weight_decays:
                    config = replace(start.config, learning_rate=rate, weight_decay=decay)
                    title = f"{configuration}, step {rate:.0e}, decay {decay:.0e}"
                    phase = MixturePhase(Fixed(str(configuration)), replace(only, config=config), title=title)
                    phase.seeds_of = 0  # the same order of images for all
                    phase.forgets = tuple(k for k in range(num_phases) if k != best_phase)
                    result = yield phase
                    if best is None or result.best.valid_accuracy > best[1].best.valid_accuracy:
                        best, best_phase = (only, result), num_phases
                    num_phases += 1
        assert best is not None
        return selected(*best, last=result)

    def source(self, start: TaskStart) -> str:
        """Return the earlier task whose features suit the new one best; of equal ones the first."""
        train, valid = some(start.task.train), start.task.valid

        def right(name: str) -> float:
            x, queries = (features(start, start.sources[name], split) for split in (train, valid))
            return neighbours_right(x, train.labels, queries, valid.labels, self.neighbours)

        return max(start.sources, key=right)


def neighbours_right(x: Tensor, labels: Tensor, queries: Tensor, answers: Tensor, k: int) -> float:
    """Return how often the k nearest images vote for the right class, in [0, 1].

    Args:
        x: features of images, shape (N, F).
        labels: their classes, shape (N,).
        queries: features of images to be answered, shape (M, F).
        answers: their classes, shape (M,).
        k: images that vote; all, if there are fewer.
    """
    nearest = torch.cdist(queries.double(), x.double()).topk(min(k, len(x)), largest=False).indices
    votes = F.one_hot(labels.cpu()[nearest], int(labels.max()) + 1).sum(dim=1)
    return float((votes.argmax(dim=1) == answers.cpu()).double().mean())
