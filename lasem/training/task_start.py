"""The start of a task: its data, the configurations to choose from, and every weight that some of them use."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import final

import torch
from torch import Tensor

from lasem.data import Split, Task
from lasem.nets import AbstractBlock, AbstractNet
from lasem.nets.block import generator_of
from lasem.sharing import AbstractSharing
from lasem.space import Configuration, Space
from lasem.space.configuration import SPECIFIC, TRANSFER
from lasem.training.config import TrainingConfig
from lasem.training.importance import Quadratic
from lasem.training.phase import Named
from lasem.tree import Path, map_tensors

FreshWeights = Mapping[tuple[int, bool], Mapping[str, Tensor]]
"""Fresh plain weights for each (layer, whether transferred) where the task's own part was taken over from another task,
as task-specific weights (False) or as a mechanism's part (True)."""


@final
@dataclass(frozen=True)
class LayerWeights:
    """One layer's: shared knowledge, the task's part of it if transferred, plain weights if not, and statistics."""

    shared: dict[str, Tensor]
    factors: dict[str, Tensor]
    specific: dict[str, Tensor]
    statistics: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Running statistics, which training measures and no optimiser moves. What reaches a layer depends on the choices
    before it, so there are some for every prefix of a configuration, such as ``ST``."""

    def on(self, device: torch.device) -> "LayerWeights":
        """Return them on a device."""
        return map_tensors(lambda t: t.to(device), self)

    def statistics_of(self, prefix: str) -> dict[str, Tensor]:
        """Return those of the layer after some choices; where they are not kept for each prefix, after its last one."""
        return self.statistics.get(prefix) or self.statistics.get(prefix[-1:], {})


@final
@dataclass(frozen=True)
class TaskWeights:
    """The layers' weights, input side first, and the head's. A part that no configuration uses is empty."""

    layers: tuple[LayerWeights, ...]
    head: dict[str, Tensor]

    def shared(self, transferred: Iterable[bool] | None = None) -> dict[str, Tensor]:
        """Return the shared tensors of all layers, or of those transferred, as ``layer.0.shared.NAME``."""
        wanted = [True] * len(self.layers) if transferred is None else transferred
        layers = enumerate(zip(self.layers, wanted, strict=True))
        return {f"layer.{i}.shared.{k}": v for i, (layer, taken) in layers if taken for k, v in layer.shared.items()}


@final
@dataclass(frozen=True)
class Source:
    """An earlier task, of whose layers a new one may use some as they are."""

    name: str
    read: Callable[[], tuple[Mapping[str, Tensor], ...]]

    @property
    def layers(self) -> tuple[Mapping[str, Tensor], ...]:
        """Plain weights of each layer, with the statistics, read each time: what the task answers with."""
        return self.read()


@final
@dataclass(frozen=True)
class SharedProtection:
    """Shared knowledge that is only read, or pulled back to where earlier tasks need it; by default neither."""

    read_only: frozenset[int] = frozenset()
    """Layers, counted from 0, whose shared knowledge does not change."""
    quadratic: Quadratic | None = None
    """Over names such as ``layer.0.shared.weight``."""
    strength: float = 0.0
    """Half of it times the quadratic is added to the loss."""

    def penalty(self, weights: Named) -> Tensor | None:
        """Return what is added to the loss, a scalar; None for nothing."""
        return None if self.quadratic is None else self.strength / 2 * self.quadratic.value(weights)


@final
@dataclass(frozen=True)
class TaskStart:
    """One task, and everything that a search starts from."""

    net: AbstractNet
    sharing: AbstractSharing
    config: TrainingConfig
    task: Task
    space: Space
    """The configurations to choose from."""
    weights: TaskWeights
    """Start of whatever some configuration of the space uses."""
    fresh_weights: FreshWeights
    device: torch.device
    seed: tuple[int, ...] = ()
    """Of the random numbers of a search: the learner's seed and the task's position."""
    protection: SharedProtection = field(default_factory=SharedProtection)
    """What holds shared knowledge that earlier tasks use."""
    sources: Mapping[str, Source] = field(default_factory=dict)
    """Earlier tasks by name whose layers may be used as they are, what was used last at the end; each is read when it
    is asked for. Of tasks with the same layers the first one."""
    source: str | None = None
    """The earlier task whose layers ``weights`` has as shared knowledge; None: the latest version of each layer."""
    evidence: tuple[tuple[float, ...], ...] = ()
    """Of each earlier task that was searched so: for each layer how much its images spoke for transfer
    (``lasem.search.evidence``)."""
    views: tuple[Split, ...] = ()
    """The training images in several versions, one for each epoch in turn; none: as the task has them."""
    valid_views: tuple[Split, ...] = ()
    """The validation images in the same versions."""
    prefix: str = ""
    """Letters of the layers before the network's, which are not computed any more (``lasem.training.kept``)."""
    is_prepared: bool = False
    """Whether it comes from ``lasem.training.kept.prepared``."""
    warmup: int = 0
    """See ``AbstractPhase``."""
    solved: float | None = None
    """See ``AbstractPhase``."""
    strength: float | None = None
    """The inverse penalty of a head that is fitted; None: it is not, or none has been chosen."""
    valid_accuracy: float | None = None
    """Where the validation images are trained on: the accuracy on them before they were."""

    def only(self, configuration: Configuration) -> "TaskStart":
        """Return the same with one configuration to train, from the same start."""
        layers = tuple(
            replace(layer, specific={}) if transferred else replace(layer, shared={}, factors={})
            for layer, transferred in zip(self.weights.layers, configuration, strict=True)
        )
        weights = TaskWeights(layers, self.weights.head)
        return replace(self, space=Space((configuration,)), weights=weights)

    def generator(self, *key: int) -> torch.Generator:
        """Return a source of random numbers on the CPU; each use in a search has a key of its own."""
        return generator_of(self.seed, *key)

    def scale(self, path: Path) -> float:
        """Return the step size of one of the weights, relative to plain weights': what is transferred has its own."""
        match path:
            case ("layers", _, "statistics", *_):
                return 0.0  # they are measured
            case ("layers", int(layer), "shared", _) if layer in self.protection.read_only:
                return 0.0
            case ("layers", _, "shared" | "factors", str(name)):
                return self.sharing.step(name)
        return 1.0

    def penalty(self, weights: TaskWeights) -> Tensor | None:
        """Return what protection adds to the loss, a scalar; None for nothing."""
        return self.protection.penalty(weights.shared())


def initial_statistics(
    block: AbstractBlock, layer: int, space: Space, *, kept: bool = False
) -> dict[str, dict[str, Tensor]]:
    """Return ``LayerWeights.statistics`` before anything was measured, on the CPU.

    A block that is ``kept`` as it is where it is transferred (``AbstractSharing.keeps``) measures none there.

    Where a space has too many members to be listed, all prefixes with the same last choice share them.
    """
    if not block.statistics:
        return {}
    prefixes = {str(c)[: layer + 1]: None for c in space} if space.is_listed else dict.fromkeys((SPECIFIC, TRANSFER))
    measuring = [prefix for prefix in prefixes if not (kept and prefix.endswith(TRANSFER))]
    return {prefix: {n: t.clone() for n, t in block.initial_statistics().items()} for prefix in measuring}
