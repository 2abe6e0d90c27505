"""Runs: their settings, their folders, which lose nothing to a kill, and comparisons of them."""

from lasem.experiments.comparison import ComparedMethod, ComparisonObserver, ComparisonResult, compare, compared_methods
from lasem.experiments.config import PRESETS, ExperimentConfig
from lasem.experiments.parts import READERS
from lasem.experiments.runner import Observer, run
from lasem.nets.net import NetChoice

__all__ = [
    "PRESETS",
    "READERS",
    "ComparedMethod",
    "ComparisonObserver",
    "ComparisonResult",
    "ExperimentConfig",
    "NetChoice",
    "Observer",
    "compare",
    "compared_methods",
    "run",
]
