"""One layer's versions of shared knowledge; those of a saved model that are not the latest wait on the disk."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import final

from torch import Tensor


@final
@dataclass(frozen=True)
class StoredVersion:
    """A version in a file of its own."""

    checksum: str
    num_parameters: int
    read: Callable[[], dict[str, Tensor]]


@final
class Shelf(Mapping[int, dict[str, Tensor]]):
    """Versions by number, in ascending order. Changes by making another one."""

    def __init__(
        self, held: Mapping[int, dict[str, Tensor]] | None = None, stored: Mapping[int, StoredVersion] | None = None
    ) -> None:
        """Take versions in memory, and those that are read when they are asked for."""
        self._held, self._stored = dict(held or {}), dict(stored or {})

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        if number not in self._held:
            self._held[number] = self._stored[number].read()
        return self._held[number]

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._held.keys() | self._stored.keys()))

    def __len__(self) -> int:
        return len(self._held.keys() | self._stored.keys())

    def __contains__(self, number: object) -> bool:
        return number in self._held or number in self._stored

    @property
    def num_parameters(self) -> int:
        """Numbers in all versions; nothing is read."""
        held = (v for number, v in self._held.items() if number not in self._stored)
        counts = [t.numel() for version in held for t in version.values()]
        return sum(counts) + sum(version.num_parameters for version in self._stored.values())

    def checksum(self, number: int) -> str | None:
        """Of the file that holds a version; None if it was not stored in one."""
        return self._stored[number].checksum if number in self._stored else None

    def with_version(self, number: int, tensors: dict[str, Tensor]) -> Shelf:
        """These and one more, or another one in the place of one."""
        stored = {key: version for key, version in self._stored.items() if key != number}
        return Shelf({**self._held, number: tensors}, stored)

    def only(self, numbers: Collection[int]) -> Shelf:
        """Some of these."""
        return Shelf(
            {number: version for number, version in self._held.items() if number in numbers},
            {number: version for number, version in self._stored.items() if number in numbers},
        )

    def with_stored(self, stored: Mapping[int, StoredVersion]) -> Shelf:
        """These, and some that wait in files."""
        return Shelf(self._held, {**self._stored, **stored})

    def saved_as(self, number: int, checksum: str) -> None:
        """Remember what file holds a version that is in memory, so that it need not be written out again."""
        version = self[number]
        self._stored[number] = StoredVersion(checksum, sum(t.numel() for t in version.values()), lambda: version)
