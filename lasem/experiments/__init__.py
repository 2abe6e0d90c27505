"""Runs: what is run, on disk so that a kill loses nothing, and its report at the end."""

from lasem.experiments.comparison import Compared, ComparisonObserver, Contestant, compare, contestants
from lasem.experiments.config import READERS, ExperimentConfig
from lasem.experiments.net_choice import NetChoice
from lasem.experiments.presets import PRESETS
from lasem.experiments.runner import run
from lasem.experiments.seed_run import Observer

__all__ = [
    "PRESETS",
    "READERS",
    "Compared",
    "ComparisonObserver",
    "Contestant",
    "ExperimentConfig",
    "NetChoice",
    "Observer",
    "compare",
    "contestants",
    "run",
]
