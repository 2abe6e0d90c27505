"""Learners: learn tasks one after another, answer for all of them, save and load."""

from lasem.learner.abstract import AbstractLearner, Images, OnEpoch, TrainingState
from lasem.learner.learned import LearnedTask
from lasem.learner.learner import Learner, find_device

__all__ = ["AbstractLearner", "Images", "LearnedTask", "Learner", "OnEpoch", "TrainingState", "find_device"]
