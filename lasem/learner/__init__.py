"""Learners: learn tasks one after another, answer for all of them, save and load."""

from lasem.data.sources import Source
from lasem.learner.abstract import AbstractLearner, Images
from lasem.learner.answers import Evaluation, Prediction
from lasem.learner.growing import GrowingModel
from lasem.learner.learned import LearnedTask
from lasem.learner.learner import Learner, find_device
from lasem.learner.overview import ModelOverview, TaskOverview
from lasem.learner.protection import PROTECTIONS, AbstractProtection, Branch, Freeze, Penalty, Unprotected

__all__ = [
    "PROTECTIONS",
    "AbstractLearner",
    "AbstractProtection",
    "Branch",
    "Evaluation",
    "Freeze",
    "GrowingModel",
    "Images",
    "LearnedTask",
    "Learner",
    "ModelOverview",
    "Penalty",
    "Prediction",
    "Source",
    "TaskOverview",
    "Unprotected",
    "find_device",
]
