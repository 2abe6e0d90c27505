"""Which configurations a search may choose from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from lasem.errors import ConfigError
from lasem.space.configuration import Configuration
from lasem.space.product import Combinations

MAX_ENUMERATED = 1 << 16
"""A space with more members is not listed: group the layers instead."""


@final
@dataclass(frozen=True)
class Space:
    """An ordered list of distinct configurations of the same depth.

    Raises:
        ConfigError: if it is empty, or the configurations are repeated or of different depths.
    """

    configurations: tuple[Configuration, ...] | Combinations

    def __post_init__(self) -> None:
        if isinstance(self.configurations, Combinations):
            return  # by how they are made
        if not self.configurations:
            raise ConfigError("A space needs at least one configuration; got none.")
        depths = {len(c) for c in self.configurations}
        if len(depths) > 1:
            raise ConfigError(
                f"All configurations of a space must have the same number of layers; got {sorted(depths)}."
            )
        if len(set(self.configurations)) != len(self.configurations):
            raise ConfigError("The configurations of a space must differ from each other; got one twice.")

    @property
    def depth(self) -> int:
        """Number of layers that each configuration speaks of."""
        return len(self.configurations[0])

    @property
    def size(self) -> int:
        """Number of members, of which there may be more than ``len`` can say."""
        configurations = self.configurations
        return len(configurations) if isinstance(configurations, tuple) else 1 << len(configurations.sizes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Layers in each group of a ``factorised`` space; of another one each layer is a group."""
        return self.configurations.sizes if isinstance(self.configurations, Combinations) else (1,) * self.depth

    @property
    def is_listed(self) -> bool:
        """Whether the members stand in memory one by one; of ``factorised`` spaces there may be too many for that."""
        return isinstance(self.configurations, tuple)

    def can(self, layer: int, *, transfer: bool) -> bool:
        """Whether any configuration transfers the layer (or learns its own)."""
        if isinstance(self.configurations, Combinations):
            return True
        return any(c[layer] == transfer for c in self.configurations)

    def __len__(self) -> int:
        return len(self.configurations)

    def __iter__(self) -> Iterator[Configuration]:
        return iter(self.configurations)

    def __getitem__(self, index: int) -> Configuration:
        return self.configurations[index]

    def index(self, configuration: Configuration) -> int:
        """Position of a configuration.

        Raises:
            ConfigError: if it is not a member.
        """
        try:
            return self.configurations.index(configuration)
        except ValueError:
            raise ConfigError(f"Configuration '{configuration}' is not one of this space's {self.size}.") from None


def full(depth: int) -> Space:
    """All ``2**depth`` configurations, from SS..S to TT..T, the first layer changing slowest.

    Raises:
        ConfigError: if there are too many to list.
    """
    return grouped((1,) * depth)


def grouped(sizes: Sequence[int]) -> Space:
    """Consecutive layers decide together: ``grouped((5, 4, 4, 4))`` is the paper's 4G for 17 convolutions.

    Args:
        sizes: layers in each group, input side first; each at least 1.

    Raises:
        ConfigError: if a group is empty, or there are too many configurations to list.
    """
    _check_groups(sizes)
    if 2 ** len(sizes) > MAX_ENUMERATED:
        raise ConfigError(
            f"{len(sizes)} groups have 2^{len(sizes)} configurations, more than {MAX_ENUMERATED} that can be listed; "
            f"put more layers into each group, or use the search 'deep-em', which needs no list."
        )
    return Space(tuple(Combinations(tuple(sizes))))


def factorised(sizes: Sequence[int]) -> Space:
    """What ``grouped`` gives, in the same order, for any number of groups: a member is made when it is asked for.

    Raises:
        ConfigError: if a group is empty.
    """
    _check_groups(sizes)
    return Space(Combinations(tuple(sizes)))


def bits_of(positions: Sequence[int], num_groups: int) -> Tensor:
    """1 where a member of ``grouped`` or ``factorised`` lets a group transfer.

    Args:
        positions: of the members.
        num_groups: G.

    Returns:
        Shape (len(positions), G), float64, on the CPU.
    """
    rows = [[position >> (num_groups - 1 - group) & 1 for group in range(num_groups)] for position in positions]
    return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), num_groups)


def listed(configurations: Iterable[Configuration | str]) -> Space:
    """The given configurations, in the given order."""
    return Space(tuple(c if isinstance(c, Configuration) else Configuration.parse(c) for c in configurations))


def _check_groups(sizes: Sequence[int]) -> None:
    if not sizes or any(size < 1 for size in sizes):
        raise ConfigError(f"Every group needs at least one layer; got group sizes {list(sizes)}.")
