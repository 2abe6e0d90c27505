"""Which configuration a task gets."""

from lasem.search.abstract import AbstractSearch, AbstractSelection
from lasem.search.darts import DARTS
from lasem.search.deep import DeepEM
from lasem.search.em import EM, batch_log_likelihood
from lasem.search.exhaustive import Exhaustive
from lasem.search.fixed import Fixed
from lasem.search.fixed_probability import FixedProbability
from lasem.search.prefix import PrefixSearch
from lasem.search.random import RandomSearch
from lasem.search.state import Drawn, Pruned, SearchState
from lasem.search.trials import AbstractTrials

SEARCHES: dict[str, type[AbstractSelection]] = {
    cls.name: cls for cls in (EM, DeepEM, Fixed, Exhaustive, RandomSearch, PrefixSearch, DARTS, FixedProbability)
}
"""The searches that a saved file or a command line can name; in Python, any AbstractSelection can be passed."""

__all__ = [
    "DARTS",
    "EM",
    "SEARCHES",
    "AbstractSearch",
    "AbstractSelection",
    "AbstractTrials",
    "DeepEM",
    "Drawn",
    "Exhaustive",
    "Fixed",
    "FixedProbability",
    "PrefixSearch",
    "Pruned",
    "RandomSearch",
    "SearchState",
    "batch_log_likelihood",
]
