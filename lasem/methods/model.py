"""The tensors that a method keeps between tasks."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any, final

import torch
from torch import Tensor

from lasem.training import Named


def count(tensors: Named) -> int:
    """Return the numbers that tensors hold, a number being 32 bits: a mask of n booleans counts as n / 32, up."""
    return sum(-(-t.numel() // 32) if t.dtype == torch.bool else t.numel() for t in tensors.values())


@final
@dataclass(frozen=True)
class StoredPart:
    """Named tensors in a file, which are read when they are first asked for."""

    checksum: str
    """SHA-256 of the file, in hexadecimal."""
    num_bytes: int
    """Size of the file."""
    num_parameters: int
    """Numbers in the tensors (see ``count``)."""


@final
class Recent:
    """Tensors that were read from files. Those that were used least recently are given up, and read again if needed."""

    def __init__(self, max_bytes: float = math.inf) -> None:
        """Keep at most ``max_bytes`` of files, and always the last one."""
        self._max_bytes, self._num_bytes, self._lock = max_bytes, 0, Lock()
        self._held: dict[tuple[str, str], tuple[int, Named]] = {}  # what was used last is last

    def reading(self, kind: str, read: Callable[[str, StoredPart], Named]) -> Callable[[str, StoredPart], Named]:
        """Return ``read``, the keys of a kind being read again only after they were given up."""

        def found(key: str, part: StoredPart) -> Named:
            with self._lock:
                before = self._held.pop((kind, key), None)
                size, tensors = self._held[kind, key] = before or (part.num_bytes, read(key, part))
                self._num_bytes += 0 if before else size
                while self._num_bytes > self._max_bytes and len(self._held) > 1:
                    self._num_bytes -= self._held.pop(next(iter(self._held)))[0]
                return tensors

        return found


@final
class Parts(Mapping[str, Named]):
    """Named tensors by key, in the order in which they were added. Changes by making another one."""

    def __init__(
        self,
        held: Mapping[str, Named] | None = None,
        stored: Mapping[str, StoredPart] | None = None,
        read: Callable[[str, StoredPart], Named] | None = None,
    ) -> None:
        """Take tensors in memory, and after them those in files; ``read`` reads one key whenever it is asked."""
        self._held, self._stored, self._read = dict(held or {}), dict(stored or {}), read
        self._keys = dict.fromkeys((*self._held, *self._stored))

    @classmethod
    def of(cls, tensors: Mapping[str, Named]) -> "Parts":
        """Return the mapping itself if it is of this class, else one that holds its tensors."""
        return tensors if isinstance(tensors, Parts) else cls(tensors)

    def __getitem__(self, key: str) -> Named:
        if key in self._held:
            return self._held[key]
        stored = self._stored[key]
        assert self._read is not None
        return self._read(key, stored)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def stored(self, key: str) -> StoredPart | None:
        """Return the file that holds a key's tensors; None if they were never saved."""
        return self._stored.get(key)

    def num_parameters(self, key: str) -> int:
        """Return the numbers in a key's tensors, without reading them."""
        stored = self._stored.get(key)
        return count(self._held[key]) if stored is None else stored.num_parameters

    def with_part(self, key: str, tensors: Named) -> "Parts":
        """Return these and one more, or another one in the place of one."""
        found = Parts()
        found._held, found._read, found._keys = {**self._held, key: tensors}, self._read, {**self._keys, key: None}
        found._stored = {name: stored for name, stored in self._stored.items() if name != key}
        return found

    def only(self, wanted: Callable[[str], bool]) -> "Parts":
        """Return those whose key is wanted."""
        found = Parts()
        found._read, found._keys = self._read, {key: None for key in self._keys if wanted(key)}
        found._held = {key: tensors for key, tensors in self._held.items() if key in found._keys}
        found._stored = {key: stored for key, stored in self._stored.items() if key in found._keys}
        return found

    def saved_as(self, stored: Mapping[str, StoredPart]) -> None:
        """Remember which files hold the tensors, so that they need not be written again."""
        self._stored.update(stored)


@final
@dataclass(frozen=True)
class Route:
    """Which layers a task transfers, and from which version of what tasks share."""

    configuration: str
    """One letter a layer, input side first: T transfers it, S is the task's own."""
    versions: tuple[int, ...]
    """For each layer the version of the shared knowledge that the task uses; 0 where it transfers nothing."""
    evidence: tuple[float, ...] = ()
    """For each layer how much the task's images speak for transfer (``lasem.search.evidence``); empty: not measured."""

    @property
    def transfers(self) -> tuple[bool, ...]:
        """For each layer whether the task transfers it."""
        return tuple(letter == "T" for letter in self.configuration)

    @property
    def keys(self) -> list[str]:
        """The versions that the task uses, as ``Model.versions`` names them."""
        pairs = zip(self.transfers, self.versions, strict=True)
        return [f"{layer}@{version}" for layer, (transferred, version) in enumerate(pairs) if transferred]


@final
@dataclass(frozen=True)
class Model:
    """Everything that a method keeps between tasks. Nothing in it is changed in place."""

    shared: Named = field(default_factory=dict)
    """What several tasks answer with, by flat name."""
    own: Mapping[str, Named] = field(default_factory=dict)
    """For each task in the order of learning, what it alone answers with."""
    memory: Named = field(default_factory=dict)
    """What only the learning of later tasks needs: importances, earlier masks, old images. No parameters."""
    versions: Parts = field(default_factory=Parts)
    """Shared knowledge by ``LAYER@VERSION``, for methods whose tasks answer with different versions of a layer."""
    routes: Mapping[str, Route] = field(default_factory=dict)
    """For each task, for methods that choose layer by layer."""

    def having(self, **changes: Any) -> "Model":
        """Return a copy with other parts."""
        return replace(self, **changes)

    def num_shared(self) -> int:
        """Return the numbers that several tasks answer with."""
        return count(self.shared) + sum(self.versions.num_parameters(key) for key in self.versions)

    def num_owned(self, name: str) -> int:
        """Return the numbers that one task alone answers with."""
        return Parts.of(self.own).num_parameters(name)


def prefixed(prefix: str, tensors: Named) -> dict[str, Tensor]:
    """Put ``PREFIX.`` before every name; the opposite of ``part_of``."""
    return {f"{prefix}.{name}": value for name, value in tensors.items()}
