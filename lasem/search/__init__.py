"""Which configuration a task gets."""

from lasem.search.abstract import AbstractSearch, AbstractSelection, SearchState
from lasem.search.em import EM, batch_log_likelihood
from lasem.search.fixed import Fixed

SEARCHES: dict[str, type[AbstractSelection]] = {cls.name: cls for cls in (EM, Fixed)}
"""The searches that a saved file or a command line can name; in Python, any AbstractSelection can be passed."""

__all__ = ["EM", "SEARCHES", "AbstractSearch", "AbstractSelection", "Fixed", "SearchState", "batch_log_likelihood"]
