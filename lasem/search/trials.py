"""Searches that train several candidates apart from each other, each for a whole task, and keep the best one.

.. [Lee2021] S. Lee, S. Behpour, E. Eaton. Sharing Less is More: Lifelong Learning in Deep Networks with Selective Layer
   Transfer. ICML 2021.
.. [Bergstra2012] J. Bergstra, Y. Bengio. Random Search for Hyper-Parameter Optimization. JMLR 13, 2012.
.. [Veniat2021] T. Veniat, L. Denoyer, M. Ranzato. Efficient Continual Learning with Modular Networks and Task-Driven
   Priors. ICLR 2021.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor

from lasem.errors import ConfigError
from lasem.search.abstract import GroupedSelection, Selected, selected
from lasem.search.sources import features, reusing, some
from lasem.search.weighing import Fixed, MixturePhase
from lasem.settings import Range
from lasem.space import Space, prefixes
from lasem.training import EpochSummary, PhaseResult, Plan, TaskStart, TaskWeights


@dataclass(frozen=True, kw_only=True)
class AbstractTrials(GroupedSelection):
    """Proposes candidates and says which one is best; every one is trained from the same start, as ``Fixed`` would.

    Holds settings and pure logic only; what the trials have come to is given to it.
    """

    retired: ClassVar[dict[str, Any]] = {"workers": None}
    """See ``EM.retired``."""

    @abstractmethod
    def propose(self, space: Space, tried: Mapping[int, float], generator: torch.Generator) -> tuple[int, ...]:
        """Return the candidates to train next; none ends the search.

        Args:
            space: the configurations of the task.
            tried: the validation accuracy of every candidate so far, by its position in the space.
            generator: the task's source of random numbers; goes on from one call to the next.

        Returns:
            Positions in the space, none of them tried before; at least one the first time.
        """

    def plan(self, start: TaskStart) -> Plan[Selected]:
        generator = start.generator(0)
        tried: dict[int, float] = {}
        best: tuple[int, PhaseResult[TaskWeights]] | None = None
        while candidates := self.propose(start.space, dict(tried), generator):
            if len({*candidates, *tried}) < len(candidates) + len(tried):
                raise ConfigError(f"{type(self).__name__}.propose must not give a candidate twice; got {candidates}.")
            for position in candidates:
                leader = position if best is None else best[0]
                forgets = tuple(i for i, other in enumerate(tried) if other != leader)
                result = yield Trial(start, position, leader=leader, forgets=forgets)
                tried[position] = result.best.valid_accuracy
                if self.best(start.space, dict(tried)) == position:
                    best = position, result
        if best is None:
            raise ConfigError(f"{type(self).__name__}.propose must give at least one candidate; it gave none.")
        return selected(start, best[1], last=result)

    def best(self, space: Space, tried: Mapping[int, float]) -> int:
        """Return the candidate that the task gets: by accuracy, then by the most layers that transfer, then the first.

        ``tried`` has their validation accuracies by position in the space. A candidate that is not the best one of
        those tried so far is forgotten and can never be chosen.
        """
        return max(tried, key=lambda position: (tried[position], space[position].num_transferred, -position))


@final
class Trial(MixturePhase[None]):
    """Training of one candidate: what ``Fixed`` does with it, from the start that all candidates have."""

    seeds_of = 0  # the same order of images and the same dropout for every candidate, and for Fixed

    def __init__(self, start: TaskStart, position: int, *, leader: int, forgets: tuple[int, ...] = ()) -> None:
        """Start before the first epoch; the candidate and the leader of those before it are positions in the space."""
        configuration = start.space[position]
        title = str(configuration) if len(start.space) > 1 else ""
        super().__init__(Fixed(str(configuration)), start.only(configuration), title=title, forgets=forgets)
        self.probabilities = tuple(float(other == leader) for other in range(len(start.space)))

    def summary(self) -> EpochSummary:
        return replace(super().summary(), probabilities=self.probabilities)


@final
@dataclass(frozen=True, kw_only=True)
class Exhaustive(AbstractTrials):
    """Trains all 2^d configurations and keeps the best one: what [Lee2021]_ measures LASEM against.

    It is the best choice for one task at a time, as the validation images see it; not the best sequence of choices,
    which would take 2^(dT) for T tasks.
    """

    name: ClassVar[str] = "exhaustive"

    form: Literal["plain", "paper"] = "plain"
    """``paper``: as the authors ran it. The candidates of the second task are imposed on the first one as well: what it
    then transfers goes on from its weights, what it does not stays as it was. Of equally good candidates, the one that
    transfers the last layer is kept, of these the one that transfers the layer before it, ...; in ``plain`` form, the
    one that transfers the most layers. Their first task is not searched: it transfers nothing (``first_task`` none)
    with ``hps``, everything with other mechanisms."""

    @property
    def imposes(self) -> bool:
        return self.form == "paper"

    def best(self, space: Space, tried: Mapping[int, float]) -> int:
        if self.form == "plain":
            return super().best(space, tried)
        return max(tried, key=lambda position: (tried[position], str(space[position])[::-1]))

    def propose(self, space: Space, tried: Mapping[int, float], generator: torch.Generator) -> tuple[int, ...]:
        return () if tried else tuple(range(len(space)))


@final
@dataclass(frozen=True, kw_only=True)
class RandomSearch(AbstractTrials):
    """Trains some configurations, drawn anew for each task, and keeps the best one ([Bergstra2012]_)."""

    name: ClassVar[str] = "random"

    num_candidates: Annotated[int, Range(least=1)] = 5
    """Different configurations to train for each task, if there are as many; at least 1. The default is what
    ``prefix`` takes for four layers."""

    def propose(self, space: Space, tried: Mapping[int, float], generator: torch.Generator) -> tuple[int, ...]:
        if tried:
            return ()
        return tuple(torch.randperm(len(space), generator=generator)[: self.num_candidates].tolist())


@final
@dataclass(frozen=True, kw_only=True)
class PrefixSearch(AbstractTrials):
    """Trains d + 1 candidates, in the manner of MNTDP: transfer the first k layers and learn the others, k = 0 ... d.

    As in [Veniat2021]_, a task takes a prefix over and the validation images say how long it is, so that candidates
    grow with the depth and not exponentially. Three things differ, for here tasks share one set of knowledge and not a
    library of modules: the prefix is of that knowledge and not of the best previous task, which MNTDP finds by nearest
    neighbours on its features; what is transferred goes on learning, where MNTDP freezes it; and the layers after it
    start as ``TrainingConfig.specific_start`` says, where MNTDP's are new.
    """

    name: ClassVar[str] = "prefix"
    most_groups: ClassVar[int | None] = None

    def choices(self, groups: tuple[int, ...]) -> Space:
        return prefixes(groups)

    def propose(self, space: Space, tried: Mapping[int, float], generator: torch.Generator) -> tuple[int, ...]:
        return () if tried else tuple(range(len(space)))


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
