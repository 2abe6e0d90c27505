"""Which configuration a task gets."""

from lasem.search.abstract import AbstractSearch, SearchState
from lasem.search.em import EM, batch_log_likelihood
from lasem.search.fixed import Fixed

SEARCHES: dict[str, type[AbstractSearch]] = {cls.name: cls for cls in (EM, Fixed)}
"""The searches that a saved file or a command line can name; in Python, any AbstractSearch can be passed."""

__all__ = ["EM", "SEARCHES", "AbstractSearch", "Fixed", "SearchState", "batch_log_likelihood"]
