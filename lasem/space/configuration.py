"""Configurations: for each transferable layer, transfer shared knowledge or learn task-specific weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import final

from lasem.errors import ConfigError, nearest

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
        """Count the layers that transfer."""
        return sum(self.bits)

    @classmethod
    def parse(cls, text: str) -> Configuration:
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


_PLAIN = ("all", "none", "alternating")


@final
class Pattern(str):
    """The name of a configuration at any depth, for instance ``"top-2"`` or, for four layers only, ``"STTS"``.

    Raises:
        ConfigError: if it is neither a known name nor letters T and S.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Pattern:
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
