"""A configuration: for each transferable layer, transfer the shared knowledge or learn task-specific weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from lasem.errors import ConfigError

TRANSFER = "T"
SPECIFIC = "S"


@final
@dataclass(frozen=True, order=True)
class Configuration:
    """One choice for each of d layers, input side first; ``str`` gives for instance ``"STTS"``.

    Raises:
        ConfigError: if there is no layer.
    """

    bits: tuple[bool, ...]
    """True where the layer transfers shared knowledge (T), False where it is task-specific (S)."""

    def __post_init__(self) -> None:
        if not self.bits:
            raise ConfigError("A configuration needs at least one layer; got none.")
        object.__setattr__(self, "bits", tuple(bool(b) for b in self.bits))

    def __str__(self) -> str:
        return "".join(TRANSFER if bit else SPECIFIC for bit in self.bits)

    def __len__(self) -> int:
        return len(self.bits)

    def __iter__(self) -> Iterator[bool]:
        return iter(self.bits)

    def __getitem__(self, layer: int) -> bool:
        return self.bits[layer]

    @property
    def num_transferred(self) -> int:
        """How many layers transfer."""
        return sum(self.bits)

    @classmethod
    def parse(cls, text: str) -> Configuration:
        """Read what ``str`` writes.

        Raises:
            ConfigError: if the text has other letters than T and S, or none.
        """
        wrong = sorted(set(text) - {TRANSFER, SPECIFIC})
        if wrong or not text:
            raise ConfigError(
                f"Expected a configuration such as 'STTS' (T transfers a layer, S learns its own, input first); "
                f"got '{text}'."
            )
        return cls(tuple(letter == TRANSFER for letter in text))
