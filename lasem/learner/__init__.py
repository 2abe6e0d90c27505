"""Learners: learn tasks one after another, answer for all of them, save and load."""

from lasem.learner.abstract import AbstractLearner, Images
from lasem.learner.learned import LearnedTask
from lasem.learner.learner import Learner, find_device

__all__ = ["AbstractLearner", "Images", "LearnedTask", "Learner", "find_device"]
