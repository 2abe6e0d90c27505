"""The shared knowledge of a learner: for each layer what tasks share, and earlier versions that are still in use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import final

from torch import Tensor

from lasem.learner.shelf import Shelf
from lasem.space import Configuration

Versions = tuple[int, ...]
"""For each layer the version of the shared knowledge that a task uses; 0 where it transfers nothing."""

_NAME = re.compile(r"layer\.(\d{1,6})(?:@(\d{1,9}))?\.(.+)", re.DOTALL)


@final
@dataclass(frozen=True)
class SharedKnowledge:
    """For each layer the versions of what is shared, by number. Without branches there is one at most, number 0."""

    layers: tuple[Shelf, ...]

    @classmethod
    def none(cls, depth: int) -> SharedKnowledge:
        """Of a learner that has learned nothing."""
        return cls((Shelf(),) * depth)

    def latest(self, layer: int) -> dict[str, Tensor]:
        """What a new task goes on from; nothing if the layer was never transferred."""
        return self.of(layer, self.latest_version(layer))

    def latest_version(self, layer: int) -> int:
        """Its number; 0 if there is none."""
        return max(self.layers[layer], default=0)

    def of(self, layer: int, version: int) -> dict[str, Tensor]:
        """One version; nothing if there is none."""
        return self.layers[layer].get(version, {})

    def with_task(
        self,
        configuration: Configuration,
        changed: Iterable[dict[str, Tensor]],
        in_use: Iterable[bool],
    ) -> tuple[SharedKnowledge, Versions]:
        """What is shared after one more task.

        Args:
            configuration: of the task.
            changed: for each layer what its shared knowledge has become, where the task transfers it.
            in_use: for each layer whether its latest version must stay, because earlier tasks use it.

        Returns:
            The shared knowledge, and the versions that the task uses.
        """
        layers, used = [], []
        for versions, transferred, new, keep in zip(self.layers, configuration, changed, in_use, strict=True):
            number = max(versions, default=0) + (1 if keep else 0)
            layers.append(versions.with_version(number, new) if transferred else versions)
            used.append(number if transferred else 0)
        return SharedKnowledge(tuple(layers)), tuple(used)

    def used_by(self, tasks: Iterable[tuple[Configuration, Versions]]) -> SharedKnowledge:
        """Only those versions that some task uses."""
        kept: list[set[int]] = [set() for _ in self.layers]
        for configuration, versions in tasks:
            for i, transferred in enumerate(configuration):
                if transferred:
                    kept[i].add(versions[i])
        return SharedKnowledge(tuple(shelf.only(numbers) for shelf, numbers in zip(self.layers, kept, strict=True)))

    @property
    def num_parameters(self) -> int:
        """Numbers in all versions."""
        return sum(shelf.num_parameters for shelf in self.layers)

    def only_latest(self) -> SharedKnowledge:
        """The latest version of each layer alone."""
        return SharedKnowledge(tuple(shelf.only({max(shelf, default=0)}) for shelf in self.layers))

    def named(self) -> dict[str, Tensor]:
        """Every tensor under one flat name such as ``layer.0.weight``, or ``layer.0@2.weight`` in version 2."""
        return {
            f"layer.{i}{f'@{number}' if number else ''}.{name}": value
            for i, versions in enumerate(self.layers)
            for number, version in versions.items()
            for name, value in version.items()
        }

    @classmethod
    def from_named(cls, flat: Mapping[str, Tensor], depth: int) -> SharedKnowledge:
        """Build what ``named`` flattened.

        Raises:
            ValueError: if a name is another than ``named`` gives.
        """
        layers: list[dict[int, dict[str, Tensor]]] = [{} for _ in range(depth)]
        for key, value in flat.items():
            match = _NAME.fullmatch(key)
            if match is None or int(match[1]) >= depth:
                raise ValueError(f"'{key}' names no tensor of {depth} layers")
            layers[int(match[1])].setdefault(int(match[2] or 0), {})[match[3]] = value
        return cls(tuple(map(Shelf, layers)))
