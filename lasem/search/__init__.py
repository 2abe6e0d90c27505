"""Searches: which configuration a task gets, and how it is trained meanwhile."""

from lasem.search.abstract import AbstractSelection as AbstractSelection
from lasem.search.abstract import Choice as Choice
from lasem.search.abstract import GroupedSelection as GroupedSelection
from lasem.search.abstract import Offer as Offer
from lasem.search.abstract import Selected as Selected
from lasem.search.darts import DARTS as DARTS
from lasem.search.darts import DARTSPhase as DARTSPhase
from lasem.search.em import EM as EM
from lasem.search.em import DeepEM as DeepEM
from lasem.search.em import DeepEMState as DeepEMState
from lasem.search.em import batch_log_likelihood as batch_log_likelihood
from lasem.search.evidence import Evidence as Evidence
from lasem.search.evidence import Price as Price
from lasem.search.mixture import Mixture as Mixture
from lasem.search.mixture import configuration_accuracy as configuration_accuracy
from lasem.search.mixture import evaluate as evaluate
from lasem.search.mixture import log_likelihood as log_likelihood
from lasem.search.trials import MNTDP as MNTDP
from lasem.search.trials import AbstractTrials as AbstractTrials
from lasem.search.trials import Exhaustive as Exhaustive
from lasem.search.trials import PrefixSearch as PrefixSearch
from lasem.search.trials import RandomSearch as RandomSearch
from lasem.search.trials import Trial as Trial
from lasem.search.tuning import TAPS as TAPS
from lasem.search.tuning import AutoRGN as AutoRGN
from lasem.search.tuning import SubTuning as SubTuning
from lasem.search.tuning import TAPSPhase as TAPSPhase
from lasem.search.weighing import AbstractSearch as AbstractSearch
from lasem.search.weighing import Fixed as Fixed
from lasem.search.weighing import FixedProbability as FixedProbability
from lasem.search.weighing import MixturePhase as MixturePhase
from lasem.search.weighing import MixtureState as MixtureState

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
