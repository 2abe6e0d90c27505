"""Configurations that fit any depth, such as ``transfer_all()``, ``top(2)`` or ``alternating()``."""

from __future__ import annotations

from typing import final

from lasem.errors import ConfigError, nearest
from lasem.space.configuration import Configuration

_PLAIN = ("all", "none", "alternating")


@final
class Pattern(str):
    """The name of a configuration at any depth, for instance ``"top-2"`` or, for four layers only, ``"STTS"``.

    Raises:
        ConfigError: if it is neither a known name nor letters T and S.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Pattern:
        """Check the name; ``of`` checks that it fits a depth."""
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
        """The configuration of a network with ``depth`` transferable layers.

        Raises:
            ConfigError: if it does not fit that depth.
        """
        kind, _, count = self.partition("-")
        if count and int(count) > depth:
            raise ConfigError(f"'{self}' asks for {count} layers; the network has {depth} that can be transferred.")
        if self == "all" or kind == "bottom":
            k = depth if self == "all" else int(count)
            return Configuration((True,) * k + (False,) * (depth - k))
        if self == "none" or kind == "top":
            k = 0 if self == "none" else int(count)
            return Configuration((False,) * (depth - k) + (True,) * k)
        if self == "alternating":
            return Configuration(tuple(layer % 2 == 1 for layer in range(depth)))
        configuration = Configuration.parse(str(self))
        if len(configuration) != depth:
            raise ConfigError(
                f"Expected a configuration of {depth} letters, one for each layer of the network; "
                f"got '{self}' with {len(configuration)}."
            )
        return configuration


def transfer_all() -> Pattern:
    """Every layer transfers: hard parameter sharing as it is usually meant."""
    return Pattern("all")


def transfer_none() -> Pattern:
    """No layer transfers: single-task learning."""
    return Pattern("none")


def top(k: int) -> Pattern:
    """The k layers nearest the output transfer."""
    return Pattern(f"top-{k}")


def bottom(k: int) -> Pattern:
    """The k layers nearest the input transfer."""
    return Pattern(f"bottom-{k}")


def alternating() -> Pattern:
    """Layers alternate, the first one task-specific: STST..."""
    return Pattern("alternating")
