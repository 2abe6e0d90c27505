"""Which configuration a task gets."""

from lasem.search.abstract import AbstractSearch, AbstractSelection, SearchState
from lasem.search.darts import DARTS
from lasem.search.em import EM, batch_log_likelihood
from lasem.search.exhaustive import Exhaustive
from lasem.search.fixed import Fixed
from lasem.search.prefix import PrefixSearch
from lasem.search.random import RandomSearch
from lasem.search.trials import AbstractTrials

SEARCHES: dict[str, type[AbstractSelection]] = {
    cls.name: cls for cls in (EM, Fixed, Exhaustive, RandomSearch, PrefixSearch, DARTS)
}
"""The searches that a saved file or a command line can name; in Python, any AbstractSelection can be passed."""

__all__ = [
    "DARTS",
    "EM",
    "SEARCHES",
    "AbstractSearch",
    "AbstractSelection",
    "AbstractTrials",
    "Exhaustive",
    "Fixed",
    "PrefixSearch",
    "RandomSearch",
    "SearchState",
    "batch_log_likelihood",
]
