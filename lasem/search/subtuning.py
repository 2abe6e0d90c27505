"""SubTuning: the layers that a task owns are added one by one, as long as that makes its cross-validation better.

.. [Kaplun2023] G. Kaplun, A. Gurevich, T. Swisa, M. David, S. Shalev-Shwartz, E. Malach. Less is More: Selective Layer
   Finetuning with SubTuning. arXiv 2302.06354, 2023. Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, final

from lasem.search.abstract import GroupedSelection, Selected
from lasem.search.evidence import cross_fitted, folds_of, without
from lasem.search.weighing import Fixed, TriedPhase, fine_tuned
from lasem.settings import Range
from lasem.space import Configuration
from lasem.training import Plan, TaskStart
from lasem.training.kept import prepared


@final
@dataclass(frozen=True, kw_only=True)
class SubTuning(GroupedSelection):
    """Greedy selection of the layers to own ([Kaplun2023]_, Algorithm 1), by the accuracy in cross-validation.

    A candidate is a layer of the network, or one of ``groups``. Two things are as in the authors' program: owning
    nothing is measured too, and the first layer has to be better than that. The configuration that is chosen then
    trains from the task's start, as with ``fixed``.
    """

    name: ClassVar[str] = "subtuning"
    most_groups: ClassVar[int | None] = None

    folds: Annotated[int, Range(least=2)] = 5
    """Parts of the labelled images, each of which is answered by a training on the others; at least 2."""
    epsilon: Annotated[float, Range(least=0, below=1)] = 0.01
    """A layer is added if the accuracy grows by more than this; in [0, 1)."""
    most_layers: Annotated[int, Range(least=0)] | None = None
    """Layers (or groups) that a task may own at most; None: any number."""
    step: Annotated[float, Range(above=0)] = 0.3
    """Step size of the trainings of a pretrained network in the search, relative to ``learning_rate``; positive."""

    def plan(self, start: TaskStart) -> Plan[Selected]:
        if start.space.size == 1:
            return (yield from Fixed(str(start.space[0])).plan(start))
        images = start.task.train.joined(start.task.valid) or start.task.train
        folds = folds_of(images.labels, self.folds, start.seed)
        parts = [without(start, images, folds == number) for number in range(self.folds)]
        rate = start.config.learning_rate * (self.step if start.net.pretrained else 1.0)

        def accuracy(configuration: Configuration) -> Plan[float]:
            ready = [prepared(part.only(configuration)) for part in parts]
            logits = yield from cross_fitted(ready, folds, rate, str(configuration))
            return float((logits.argmax(dim=1) == images.labels.cpu()).double().mean())

        chosen = yield from self.greedy(start.space.sizes, accuracy)
        return (yield from fine_tuned(partial(TriedPhase, Fixed(str(chosen))), start.only(chosen)))

    def greedy(self, sizes: Sequence[int], accuracy: Callable[[Configuration], Plan[float]]) -> Plan[Configuration]:
        """Yield what it takes to measure configurations, and return the one that is chosen.

        Args:
            sizes: layers in each group that is added as a whole.
            accuracy: gives the phases that measure a configuration, and returns its accuracy in [0, 1].
        """
        owned = frozenset[int]()
        best = yield from accuracy(_owning(owned, sizes))
        most = len(sizes) if self.most_layers is None else min(self.most_layers, len(sizes))
        while len(owned) < most and best + self.epsilon < 1:  # else nothing can be gained
            found: dict[int, float] = {}
            for group in sorted(set(range(len(sizes))) - owned):
                found[group] = yield from accuracy(_owning(owned | {group}, sizes))
            added = max(found, key=found.__getitem__)  # of equal ones the first
            if found[added] <= best + self.epsilon:
                break
            owned, best = owned | {added}, found[added]
        return _owning(owned, sizes)


def _owning(owned: frozenset[int], sizes: Sequence[int]) -> Configuration:
    return Configuration(tuple(group not in owned for group, size in enumerate(sizes) for _ in range(size)))
