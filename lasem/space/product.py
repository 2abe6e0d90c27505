"""All configurations of many groups of layers, none of which is made before it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import final

from lasem.space.configuration import Configuration


@final
@dataclass(frozen=True)
class Combinations:
    """The ``2**G`` configurations of G groups of layers, from SS..S to TT..T, the first group changing slowest.

    A configuration's position is a number of G bits, so that neither it nor the way back takes a list.
    """

    sizes: tuple[int, ...]
    """Layers in each group, input side first."""

    def __len__(self) -> int:
        return 1 << len(self.sizes)  # Python refuses a length of 2^63 or more: only small spaces are ever walked

    def __iter__(self) -> Iterator[Configuration]:
        return (self.of(bits) for bits in product((False, True), repeat=len(self.sizes)))

    def __getitem__(self, position: int) -> Configuration:
        num_groups = len(self.sizes)
        if not 0 <= position < 2**num_groups:
            raise IndexError(f"Expected a position from 0 to 2^{num_groups} - 1; got {position}.")
        return self.of([bool(position >> (num_groups - 1 - group) & 1) for group in range(num_groups)])

    def of(self, bits: Sequence[bool]) -> Configuration:
        """The configuration whose groups choose so: True transfers."""
        return Configuration(tuple(bit for bit, size in zip(bits, self.sizes, strict=True) for _ in range(size)))

    def index(self, configuration: Configuration) -> int:
        """Position of a configuration; ValueError if the layers of a group differ or their number does."""
        first = 0
        position = 0
        for size in self.sizes:
            group = configuration.bits[first : first + size]
            if len(set(group)) != 1 or len(group) != size:
                raise ValueError(f"{configuration} is none of them")
            position, first = 2 * position + group[0], first + size
        if first != len(configuration):
            raise ValueError(f"{configuration} is none of them")
        return position
