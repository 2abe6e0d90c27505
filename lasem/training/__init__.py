"""How weights are fitted to one task."""

from lasem.training.config import TrainingConfig
from lasem.training.evaluation import EVALUATION_BATCH, share_right
from lasem.training.fisher import FisherKind, directions_of, squared_gradients
from lasem.training.guard import Guard
from lasem.training.loop import Loop
from lasem.training.mixture import Mixture, evaluate, log_likelihood
from lasem.training.optimiser import RMSpropTF, build_optimiser, learning_rate
from lasem.training.phase import AbstractPhase, Batch, Fitted, Named, Seen, Snapshot, Step
from lasem.training.plan import OnEpoch, Plan, TrainingState, follow
from lasem.training.precision import Precision, check_precision, computing, widened
from lasem.training.problem import Problem, Replaced
from lasem.training.quadratic import Quadratic, with_term
from lasem.training.relaxation import Relaxation
from lasem.training.selection import Choice, Selected, plan_of
from lasem.training.trials import Trial
from lasem.training.weighing import Weighing, accuracy
from lasem.training.weights import LayerWeights, TaskWeights, initial_statistics, part_of

__all__ = [
    "EVALUATION_BATCH",
    "AbstractPhase",
    "Batch",
    "Choice",
    "FisherKind",
    "Fitted",
    "Guard",
    "LayerWeights",
    "Loop",
    "Mixture",
    "Named",
    "OnEpoch",
    "Plan",
    "Precision",
    "Problem",
    "Quadratic",
    "RMSpropTF",
    "Relaxation",
    "Replaced",
    "Seen",
    "Selected",
    "Snapshot",
    "Step",
    "TaskWeights",
    "TrainingConfig",
    "TrainingState",
    "Trial",
    "Weighing",
    "accuracy",
    "build_optimiser",
    "check_precision",
    "computing",
    "directions_of",
    "evaluate",
    "follow",
    "initial_statistics",
    "learning_rate",
    "log_likelihood",
    "part_of",
    "plan_of",
    "share_right",
    "squared_gradients",
    "widened",
    "with_term",
]
