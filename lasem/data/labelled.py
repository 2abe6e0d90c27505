"""A data set before it is cut into tasks: labels and splits at once, pixels when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from torch import Tensor

from lasem.data.cut import CutSettings, TaskCut, cut, stream_of_cuts, used_positions
from lasem.data.images import AbstractImages
from lasem.data.split import Standardise
from lasem.data.stream import TaskStream


@final
@dataclass(frozen=True, eq=False)
class Labelled:
    """What a reader has found: N images, of which only those that tasks use need to be decoded."""

    labels: Tensor
    """int64 (N,), positions in ``class_names``."""
    parts: Tensor
    """int64 (N,), the split that the data set has each image in: TRAIN, VALID or TEST."""
    class_names: Sequence[str]
    take: Callable[[Tensor], AbstractImages]
    """Gives the images at some positions, ascending."""

    def disjoint(self, settings: CutSettings, seed: int, name: str) -> TaskStream:
        """The stream of tasks with disjoint classes; see ``lasem.data.cut``."""
        cuts = cut(settings, self.labels, self.parts, self.class_names, seed)
        return self.stream(cuts, name=name, standardise=settings.standardise)

    def stream(self, cuts: Sequence[TaskCut], *, name: str, standardise: Standardise) -> TaskStream:
        """The stream of some cuts, whose images are taken at once."""
        used = used_positions(cuts)
        return stream_of_cuts(cuts, self.take(used), used, name=name, standardise=standardise)
