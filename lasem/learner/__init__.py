"""Learners: learn tasks one after another, answer for all of them, save and load."""

from lasem.data.sources import Source
from lasem.learner.answers import Evaluation, Mistake, ModelOverview, Prediction, TaskOverview
from lasem.learner.growing import GrowingModel
from lasem.learner.learner import Images, Learner, find_device
from lasem.learner.model_folder import TaskInfo
from lasem.learner.plain_network import plain_network

__all__ = [
    "Evaluation",
    "GrowingModel",
    "Images",
    "Learner",
    "Mistake",
    "ModelOverview",
    "Prediction",
    "Source",
    "TaskInfo",
    "TaskOverview",
    "find_device",
    "plain_network",
]
