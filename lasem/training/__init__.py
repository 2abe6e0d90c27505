"""Training: how weights are fitted to one task, whatever the method."""

from lasem.training.config import TrainingConfig
from lasem.training.fisher import FisherKind, directions_of, squared_gradients
from lasem.training.loop import Loop
from lasem.training.optimiser import RMSpropTF, build_optimiser, learning_rate
from lasem.training.phase import (
    EVALUATION_BATCH,
    AbstractPhase,
    Batch,
    EpochSummary,
    Named,
    PhaseResult,
    Snapshot,
    Step,
    accuracy,
)
from lasem.training.plan import OnEpoch, Plan, TrainingState, follow
from lasem.training.precision import Precision, as_float32, autocast, check_precision
from lasem.training.protection import Quadratic, SharedProtection, with_term
from lasem.training.task_start import FreshWeights, LayerWeights, TaskStart, TaskWeights, initial_statistics
from lasem.tree import part_of

__all__ = [
    "EVALUATION_BATCH",
    "AbstractPhase",
    "Batch",
    "EpochSummary",
    "FisherKind",
    "FreshWeights",
    "LayerWeights",
    "Loop",
    "Named",
    "OnEpoch",
    "PhaseResult",
    "Plan",
    "Precision",
    "Quadratic",
    "RMSpropTF",
    "SharedProtection",
    "Snapshot",
    "Step",
    "TaskStart",
    "TaskWeights",
    "TrainingConfig",
    "TrainingState",
    "accuracy",
    "as_float32",
    "autocast",
    "build_optimiser",
    "check_precision",
    "directions_of",
    "follow",
    "initial_statistics",
    "learning_rate",
    "part_of",
    "squared_gradients",
    "with_term",
]
