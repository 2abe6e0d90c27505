"""Searches: which configuration a task gets, and how it is trained meanwhile."""

from lasem.search.abstract import AbstractSelection, Choice, GroupedSelection, Offer, Selected
from lasem.search.auto_rgn import AutoRGN
from lasem.search.darts import DARTS, DARTSPhase
from lasem.search.deep_em import DeepEM, DeepEMState
from lasem.search.em import EM, batch_log_likelihood
from lasem.search.evidence import Evidence
from lasem.search.mixture import Mixture, configuration_accuracy, evaluate, log_likelihood
from lasem.search.subtuning import SubTuning
from lasem.search.taps import TAPS, TAPSPhase
from lasem.search.trials import MNTDP, AbstractTrials, Exhaustive, PrefixSearch, RandomSearch, Trial
from lasem.search.weighing import AbstractSearch, Fixed, FixedProbability, MixturePhase, MixtureState

SEARCHES: dict[str, type[AbstractSelection]] = {
    cls.name: cls
    for cls in (
        EM,
        DeepEM,
        Evidence,
        Fixed,
        Exhaustive,
        RandomSearch,
        PrefixSearch,
        MNTDP,
        DARTS,
        SubTuning,
        TAPS,
        AutoRGN,
        FixedProbability,
    )
}
"""The searches that a saved file or a command line can name; in Python, any AbstractSelection can be passed."""

__all__ = [
    "DARTS",
    "EM",
    "MNTDP",
    "SEARCHES",
    "TAPS",
    "AbstractSearch",
    "AbstractSelection",
    "AbstractTrials",
    "AutoRGN",
    "Choice",
    "DARTSPhase",
    "DeepEM",
    "DeepEMState",
    "Evidence",
    "Exhaustive",
    "Fixed",
    "FixedProbability",
    "GroupedSelection",
    "Mixture",
    "MixturePhase",
    "MixtureState",
    "Offer",
    "PrefixSearch",
    "RandomSearch",
    "Selected",
    "SubTuning",
    "TAPSPhase",
    "Trial",
    "batch_log_likelihood",
    "configuration_accuracy",
    "evaluate",
    "log_likelihood",
]
