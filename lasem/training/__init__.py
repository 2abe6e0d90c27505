"""Training: how weights are fitted to one task, whatever the method."""

from lasem.nets.block import part_of
from lasem.training.augment import PRESETS, Augment, Augmentation, augmented, preset_for
from lasem.training.config import (
    Precision,
    RMSpropTF,
    TrainingConfig,
    autocast,
    build_optimiser,
    check_precision,
    learning_rate,
)
from lasem.training.importance import MAX_IMAGES, FisherKind, Quadratic, fisher_information, with_term
from lasem.training.loop import Loop
from lasem.training.phase import (
    AbstractPhase,
    Batch,
    EpochSummary,
    Named,
    PhaseResult,
    Snapshot,
    Step,
    accuracy,
    batches_of,
    class_weights,
    evaluation_batch,
)
from lasem.training.plan import CHECKPOINT_SECONDS, Checkpoint, Checkpoints, OnEpoch, Plan, TrainingState, follow
from lasem.training.task_start import (
    FreshWeights,
    LayerWeights,
    SharedProtection,
    TaskStart,
    TaskWeights,
    initial_statistics,
)

__all__ = [
    "CHECKPOINT_SECONDS",
    "MAX_IMAGES",
    "PRESETS",
    "AbstractPhase",
    "Augment",
    "Augmentation",
    "Batch",
    "Checkpoint",
    "Checkpoints",
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
    "augmented",
    "autocast",
    "batches_of",
    "build_optimiser",
    "check_precision",
    "class_weights",
    "evaluation_batch",
    "fisher_information",
    "follow",
    "initial_statistics",
    "learning_rate",
    "part_of",
    "preset_for",
    "with_term",
]
