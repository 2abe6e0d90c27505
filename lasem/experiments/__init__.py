"""Runs: their settings, their folders, which lose nothing to a kill, and comparisons of them."""

from lasem.experiments.comparison import ComparedMethod as ComparedMethod
from lasem.experiments.comparison import ComparisonObserver as ComparisonObserver
from lasem.experiments.comparison import ComparisonResult as ComparisonResult
from lasem.experiments.comparison import compare as compare
from lasem.experiments.comparison import compared_methods as compared_methods
from lasem.experiments.config import PRESETS as PRESETS
from lasem.experiments.config import ExperimentConfig as ExperimentConfig
from lasem.experiments.parts import READERS as READERS
from lasem.experiments.runner import run as run
from lasem.learner.watching import Observer as Observer
from lasem.nets.net import NetChoice as NetChoice
