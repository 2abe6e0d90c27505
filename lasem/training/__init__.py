"""How weights are fitted to one task."""

from lasem.training.config import TrainingConfig
from lasem.training.mixture import Mixture, evaluate, log_likelihood
from lasem.training.optimiser import RMSpropTF, build_optimiser, learning_rate
from lasem.training.trainer import EVALUATION_BATCH, Best, Trainer, accuracy
from lasem.training.weights import LayerWeights, TaskWeights, part_of

__all__ = [
    "EVALUATION_BATCH",
    "Best",
    "LayerWeights",
    "Mixture",
    "RMSpropTF",
    "TaskWeights",
    "Trainer",
    "TrainingConfig",
    "accuracy",
    "build_optimiser",
    "evaluate",
    "learning_rate",
    "log_likelihood",
    "part_of",
]
