"""How weights are fitted to one task."""

from lasem.training.config import TrainingConfig
from lasem.training.evaluation import EVALUATION_BATCH, accuracy
from lasem.training.fisher import FisherKind, directions_of, squared_gradients
from lasem.training.guard import SharedProtection
from lasem.training.loop import Loop
from lasem.training.mixture import Mixture, evaluate, log_likelihood
from lasem.training.optimiser import RMSpropTF, build_optimiser, learning_rate
from lasem.training.phase import AbstractPhase, Batch, EpochSummary, Named, PhaseResult, Snapshot, Step
from lasem.training.plan import OnEpoch, Plan, TrainingState, follow
from lasem.training.precision import Precision, as_float32, autocast, check_precision
from lasem.training.quadratic import Quadratic, with_term
from lasem.training.relaxation import DARTSPhase
from lasem.training.selection import Choice, Selected, plan_of
from lasem.training.task_start import FreshWeights, TaskStart
from lasem.training.trials import Trial
from lasem.training.weighing import MixturePhase, configuration_accuracy
from lasem.training.weights import LayerWeights, TaskWeights, initial_statistics, part_of

__all__ = [
    "EVALUATION_BATCH",
    "AbstractPhase",
    "Batch",
    "Choice",
    "DARTSPhase",
    "EpochSummary",
    "FisherKind",
    "FreshWeights",
    "LayerWeights",
    "Loop",
    "Mixture",
    "MixturePhase",
    "Named",
    "OnEpoch",
    "PhaseResult",
    "Plan",
    "Precision",
    "Quadratic",
    "RMSpropTF",
    "Selected",
    "SharedProtection",
    "Snapshot",
    "Step",
    "TaskStart",
    "TaskWeights",
    "TrainingConfig",
    "TrainingState",
    "Trial",
    "accuracy",
    "as_float32",
    "autocast",
    "build_optimiser",
    "check_precision",
    "configuration_accuracy",
    "directions_of",
    "evaluate",
    "follow",
    "initial_statistics",
    "learning_rate",
    "log_likelihood",
    "part_of",
    "plan_of",
    "squared_gradients",
    "with_term",
]
