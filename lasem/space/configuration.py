"""Configurations, which transfer or learn each layer, and spaces of them, which a search may choose from."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, product
from typing import final

import torch
from torch import Tensor

from lasem.errors import ConfigError, nearest

TRANSFER = "T"
SPECIFIC = "S"

_PLAIN = ("all", "none", "alternating")
MAX_ENUMERATED = 1 << 16
"""A space with more members is not listed: group the layers instead."""


@final
@dataclass(frozen=True, order=True)
class Configuration:
    """One choice for each of d layers, d > 0, input side first; ``str`` gives for instance ``"STTS"``."""

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
        """Count the layers that transfer."""
        return sum(self.bits)

    @classmethod
    def parse(cls, text: str) -> "Configuration":
        """Read what ``str`` writes; ConfigError if the text has other letters than T and S, or none."""
        wrong = sorted(set(text) - {TRANSFER, SPECIFIC})
        if wrong or not text:
            raise ConfigError(
                f"Expected a configuration such as 'STTS' (T transfers a layer, S learns its own, input first); "
                f"got '{text}'."
            )
        return cls(tuple(letter == TRANSFER for letter in text))


def layers_in_words(configuration: str, names: Sequence[str] = ()) -> str:
    """Say which layers are transferred and which are a task's own.

    Three and more neighbours whose names differ in the number at the end are said as the first to the last.

    Args:
        configuration: for instance ``"TTTS"``; empty if nothing was chosen.
        names: what each layer is called; empty: by its number.
    """
    shown = names or [str(number) for number in range(1, len(configuration) + 1)]
    alike = groupby(range(len(configuration)), lambda k: (configuration[k], shown[k].rstrip("0123456789")))
    runs = [(choice, [shown[k] for k in of_run]) for (choice, _), of_run in alike]

    def listed(choice: str) -> str:
        found = [run if len(run) < 3 else [f"{run[0]} to {run[-1]}"] for chosen, run in runs if chosen == choice]
        kind = "" if names else "layer " if configuration.count(choice) == 1 else "layers "
        return kind + ", ".join(name for run in found for name in run)

    parts = ((TRANSFER, "transferred"), (SPECIFIC, "its own"))
    return "; ".join(f"{listed(choice)} {what}" for choice, what in parts if choice in configuration)


@final
class Pattern(str):
    """The name of a configuration at any depth, such as ``"top-2"``, or of four layers ``"STTS"``; else ConfigError."""

    __slots__ = ()

    def __new__(cls, text: str) -> "Pattern":
        kind, _, count = text.partition("-")
        known = text in _PLAIN or (kind in ("top", "bottom") and count.isdecimal())
        if not known and (not text or set(text) - {"T", "S"}):
            raise ConfigError(
                f"Expected a configuration: all, none, alternating, top-K, bottom-K, or letters such as 'STTS' "
                f"(T transfers a layer, S learns its own, input first); got '{text}'."
                f"{nearest(text, (*_PLAIN, 'top-1', 'bottom-1'))}"
            )
        return super().__new__(cls, text)

    def of(self, depth: int) -> Configuration:
        """Return the configuration of a network with ``depth`` transferable layers; ConfigError if it does not fit."""
        kind, _, count = self.partition("-")
        if count and int(count) > depth:
            raise ConfigError(f"'{self}' asks for {count} layers; the network has {depth} that can be transferred.")
        transfers: dict[str, Callable[[int], bool]] = {
            "all": lambda layer: True,
            "none": lambda layer: False,
            "alternating": lambda layer: layer % 2 == 1,
            "bottom": lambda layer: layer < int(count),
            "top": lambda layer: layer >= depth - int(count),
        }
        if kind in transfers:
            return Configuration(tuple(map(transfers[kind], range(depth))))
        configuration = Configuration.parse(self)
        if len(configuration) != depth:
            raise ConfigError(
                f"Expected a configuration of {depth} letters, one for each layer of the network; "
                f"got '{self}' with {len(configuration)}."
            )
        return configuration


def transfer_all() -> Pattern:
    """Let every layer transfer: hard parameter sharing in its usual sense."""
    return Pattern("all")


def transfer_none() -> Pattern:
    """Let no layer transfer: single-task learning."""
    return Pattern("none")


def top(k: int) -> Pattern:
    """Let the k layers nearest the output transfer."""
    return Pattern(f"top-{k}")


def bottom(k: int) -> Pattern:
    """Let the k layers nearest the input transfer."""
    return Pattern(f"bottom-{k}")


def alternating() -> Pattern:
    """Let layers alternate, the first one task-specific: STST..."""
    return Pattern("alternating")


@final
@dataclass(frozen=True)
class Combinations:
    """The ``2**G`` configurations of G groups of layers, from SS..S to TT..T, the first group changing slowest.

    None of them is made before it is asked for: its position is a number of G bits.
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
        """Return the configuration of the groups' choices: True transfers."""
        return Configuration(tuple(bit for bit, size in zip(bits, self.sizes, strict=True) for _ in range(size)))

    def index(self, configuration: Configuration) -> int:
        """Return the position of a configuration; ValueError if the layers of a group differ or their number does."""
        first = [0, *accumulate(self.sizes[:-1])]
        bits = [configuration.bits[i] for i in first if i < len(configuration)]
        if len(bits) != len(first) or self.of(bits) != configuration:
            raise ValueError(f"{configuration} is none of them")
        return sum(bit << place for place, bit in enumerate(reversed(bits)))


@final
@dataclass(frozen=True)
class Space:
    """An ordered list of configurations, at least one, which differ and have the same depth; else ConfigError."""

    configurations: tuple[Configuration, ...] | Combinations

    def __post_init__(self) -> None:
        if isinstance(self.configurations, Combinations):
            return
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
        """Number of layers of each configuration."""
        return len(self.configurations[0])

    @property
    def size(self) -> int:
        """Number of members, which may be too large for ``len``."""
        configurations = self.configurations
        return len(configurations) if isinstance(configurations, tuple) else 1 << len(configurations.sizes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Layers in each group of a ``factorised`` space; in others each layer is a group."""
        return self.configurations.sizes if isinstance(self.configurations, Combinations) else (1,) * self.depth

    @property
    def is_listed(self) -> bool:
        """Whether the members are in memory one by one; ``factorised`` spaces may have too many for that."""
        return isinstance(self.configurations, tuple)

    def can(self, layer: int, *, transfer: bool) -> bool:
        """Return whether any configuration transfers the layer (or learns its own)."""
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
        """Return the position of a configuration; ConfigError if it is not a member."""
        try:
            return self.configurations.index(configuration)
        except ValueError:
            raise ConfigError(f"Configuration '{configuration}' is not one of this space's {self.size}.") from None


def full(depth: int) -> Space:
    """List all ``2**depth`` configurations, from SS..S to TT..T, the first layer changing slowest."""
    return grouped((1,) * depth)


def grouped(sizes: Sequence[int]) -> Space:
    """Let consecutive layers decide together: ``grouped((5, 4, 4, 4))`` is the paper's 4G for 17 convolutions.

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
    """Return the space of ``grouped``, in the same order, for any number of groups: members are not listed."""
    _check_groups(sizes)
    return Space(Combinations(tuple(sizes)))


def prefixes(sizes: Sequence[int]) -> Space:
    """List the d + 1 configurations that transfer the first layers, from none to all, a group more each time."""
    return listed(bottom(k).of(sum(sizes)) for k in accumulate(sizes, initial=0))


def bits_of(positions: Sequence[int], num_groups: int) -> Tensor:
    """Return 1 where a member of ``grouped`` or ``factorised`` lets a group transfer, else 0.

    The shape is (len(positions), num_groups), in float64, on the CPU.
    """
    rows = [[position >> (num_groups - 1 - group) & 1 for group in range(num_groups)] for position in positions]
    return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), num_groups)


def listed(configurations: Iterable[Configuration | str]) -> Space:
    """Make a space of configurations, or their letters, in the given order."""
    return Space(tuple(c if isinstance(c, Configuration) else Configuration.parse(c) for c in configurations))


def _check_groups(sizes: Sequence[int]) -> None:
    if not sizes or any(size < 1 for size in sizes):
        raise ConfigError(f"Every group needs at least one layer; got group sizes {list(sizes)}.")
