"""Which configurations exist, and how all of them are evaluated in one pass."""

from lasem.space.configuration import Configuration
from lasem.space.pattern import Pattern, all, alternating, bottom, none, top
from lasem.space.prefix_tree import Level, PrefixTree
from lasem.space.space import Space, full, grouped, listed

__all__ = [
    "Configuration",
    "Level",
    "Pattern",
    "PrefixTree",
    "Space",
    "all",
    "alternating",
    "bottom",
    "full",
    "grouped",
    "listed",
    "none",
    "top",
]
