"""Runs in this process, one after another: those of own classes, which no other process can be told of."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence

from lasem.errors import LasemError
from lasem.experiments.cradle import Job
from lasem.experiments.observer import Teller
from lasem.experiments.runner import run
from lasem.experiments.workers import Ended, Event, Started, event_of


def work_here(jobs: Sequence[Job], tell: Callable[[Event], None]) -> None:
    """Do jobs in their order. One that fails does not stop the others.

    Args:
        jobs: what is to be done.
        tell: is called with what ``workers.work`` would tell, as it happens.
    """
    for job in jobs:
        tell(Started(job.name))
        started = time.monotonic()
        error, details = None, ""
        try:
            run(
                job.config,
                job.directory,
                observer=Teller(lambda name=job.name, **message: tell(event_of(name, **message))),
                resume=job.resume,
                command=job.command,
            )
        except LasemError as failure:
            error = str(failure)
        except Exception as failure:
            error, details = f"unexpected {type(failure).__name__}: {failure}", traceback.format_exc()
        tell(Ended(job.name, time.monotonic() - started, error, details))
