"""Configurations of transferable layers, spaces of them, and their evaluation in one pass."""

from lasem.space.configuration import (
    Configuration,
    Pattern,
    Space,
    alternating,
    bits_of,
    bottom,
    factorised,
    full,
    grouped,
    layers_in_words,
    listed,
    prefixes,
    top,
    transfer_all,
    transfer_none,
)
from lasem.space.prefix_tree import PrefixTree, positions, stacked, unstacked

__all__ = [
    "Configuration",
    "Pattern",
    "PrefixTree",
    "Space",
    "alternating",
    "bits_of",
    "bottom",
    "factorised",
    "full",
    "grouped",
    "layers_in_words",
    "listed",
    "positions",
    "prefixes",
    "stacked",
    "top",
    "transfer_all",
    "transfer_none",
    "unstacked",
]
