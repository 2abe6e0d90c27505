"""Lifelong learning with selective layer transfer (LASEM), in PyTorch.

The names below are the usual ones; each room (``lasem.data``, ``lasem.nets``, ``lasem.space``, ``lasem.sharing``,
``lasem.search``, ``lasem.training``, ``lasem.learner``, ``lasem.methods``, ``lasem.metrics``, ``lasem.experiments``,
``lasem.report``) has more.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lasem.data import DigitsReader, FolderReader, ParquetReader, Split, Task, TaskStream, TensorReader, TextReader
    from lasem.errors import LasemError
    from lasem.learner import GrowingModel, Learner, pull, push
    from lasem.methods import Branch, Freeze, Penalty
    from lasem.nets import Net, cifar, for_images, office_home, stl10
    from lasem.search import EM, Fixed
    from lasem.sharing import Deconvolution, HardSharing, LowRank, TensorFactorization
    from lasem.space import Configuration, alternating, bottom, top, transfer_all, transfer_none
    from lasem.training import TrainingConfig

__version__ = "0.2.0"

__all__ = [
    "EM",
    "Branch",
    "Configuration",
    "Deconvolution",
    "DigitsReader",
    "Fixed",
    "FolderReader",
    "Freeze",
    "GrowingModel",
    "HardSharing",
    "LasemError",
    "Learner",
    "LowRank",
    "Net",
    "ParquetReader",
    "Penalty",
    "Split",
    "Task",
    "TaskStream",
    "TensorFactorization",
    "TensorReader",
    "TextReader",
    "TrainingConfig",
    "alternating",
    "bottom",
    "cifar",
    "for_images",
    "office_home",
    "pull",
    "push",
    "stl10",
    "top",
    "transfer_all",
    "transfer_none",
]


# in the order of their imports
_ROOMS = ("errors", "data", "nets", "space", "sharing", "training", "search", "methods", "learner")


def __getattr__(name: str) -> Any:
    """Import a name when it is first used, so that ``lasem --help`` does not wait for torch."""
    if name in __all__:
        rooms = (importlib.import_module(f"lasem.{room}") for room in _ROOMS)
        return next(getattr(room, name) for room in rooms if hasattr(room, name))
    raise AttributeError(f"module 'lasem' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
