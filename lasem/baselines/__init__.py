"""Methods to compare with, one file each, on the same loop, data and records."""

from lasem.baselines.ewc import EWC
from lasem.baselines.learner import BaselineLearner
from lasem.baselines.method import AbstractMethod, Learned, Model, Setup

METHODS: dict[str, type[AbstractMethod]] = {cls.name: cls for cls in (EWC,)}
"""The methods that a saved file or a command line can name; in Python, any AbstractMethod can be passed."""

__all__ = ["EWC", "METHODS", "AbstractMethod", "BaselineLearner", "Learned", "Model", "Setup"]
