"""Commands that make a grid of runs: how many at a time and where, the progress, and what they end with."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lasem.cli.main import FAILURE
from lasem.cli.progress import Log, Shown, duration, make_observer
from lasem.experiments import ComparisonObserver, ComparisonResult
from lasem.experiments.grid import AbstractExecutor, Ended, Event, Learned, Noted, Started
from lasem.report.numbers import method_name


class ComparisonShown(ComparisonObserver):
    """A line for each run that ends, and in a terminal one that moves."""

    def __init__(self, shown: Shown, folder: Path, command: Sequence[str], *, num_workers: int) -> None:
        """Show on ``shown`` the runs in a folder that a command makes, so many at a time."""
        self._shown, self._folder, self._command, self._num_workers = shown, folder, command, num_workers

    def comparison_starts(self, directory: Path, waiting: Sequence[str], finished: Sequence[str]) -> None:
        again = shlex.join(self._command)
        self._shown.stopped = f"Stopped. Nothing finished is lost; go on with the same command: {again}"
        self._shown.failed = f"What was learned before is in {self._folder}."
        self._clock = time.monotonic()
        self._waiting, self._num_runs, self._num_ended = list(waiting), len(waiting), 0
        self._running: dict[str, tuple[float, float]] = {}  # when it began, and the share of it that is done
        self._seconds: dict[str, float] = {}
        there = f", {len(finished)} finished already" if finished else ""
        self._shown.line(f"Writing to {directory}: {len(waiting)} run{'s' if len(waiting) != 1 else ''} to go{there}")

    def notify(self, event: Event) -> None:
        if isinstance(event, Started):
            self._waiting.remove(event.name)
            self._running[event.name] = (time.monotonic(), 0.0)
        elif isinstance(event, Learned):
            share = event.num_learned / event.num_tasks if event.num_tasks else 0.0
            self._running[event.name] = (self._running[event.name][0], share)
        elif isinstance(event, Noted):
            self._shown.line(f"{method_name(event.name)}: {event.message}")
        elif isinstance(event, Ended):
            self._end(event)
        if not isinstance(self._shown, Log):  # which has a line for each run only
            names = ", ".join(f"{method_name(name)} {100 * share:.0f} %" for name, (_, share) in self._running.items())
            share = (self._num_ended + sum(of[1] for of in self._running.values())) / max(1, self._num_runs)
            self._shown.moment(f"{self._num_ended} of {self._num_runs} runs{self._left()}: {names}", share)

    def _end(self, event: Ended) -> None:
        del self._running[event.name]
        self._num_ended += 1
        if event.error is None:
            self._seconds[event.name] = event.seconds
        how = f"done in {duration(event.seconds)}" if event.error is None else f"failed: {event.error}"
        self._shown.line(
            f"{self._num_ended}/{self._num_runs} {method_name(event.name)}: {how} "
            f"({duration(time.monotonic() - self._clock)} elapsed{self._left()})"
        )

    def _left(self) -> str:
        """What the rest will take, from the runs that have ended: the same method's if there is one."""
        rest = [*self._waiting, *self._running]
        if not rest or not self._seconds:
            return ""
        seconds = []
        for name in rest:
            method = name.rpartition("-")[0]
            same = [taken for other, taken in self._seconds.items() if other.rpartition("-")[0] == method]
            known = same or list(self._seconds.values())
            gone = time.monotonic() - self._running[name][0] if name in self._running else 0.0
            seconds.append(max(0.0, sum(known) / len(known) - gone))
        return f", about {duration(max(sum(seconds) / self._num_workers, max(seconds)))} left"


@contextmanager
def shown_runs(directory: Path, command: Sequence[str], *, num_workers: int, quiet: bool) -> Iterator[ComparisonShown]:
    """Show the progress of the runs inside; after Ctrl-C or an error, say what is left and how to go on."""
    shown = make_observer(quiet=quiet)
    with shown.explained():
        yield ComparisonShown(shown, directory, command, num_workers=num_workers)


def find_workers(workers: int | None, ray: str | None, threads: int) -> tuple[int, AbstractExecutor | None]:
    """Return how many runs go on at a time, and what makes them; None: processes of this machine.

    Raises:
        ConfigError: if ray is not installed, or there is no cluster at the address.
    """
    if ray is None:
        return workers or 1, None
    from lasem.experiments.ray_executor import RayExecutor

    executor = RayExecutor(ray)
    return workers or executor.max_workers(threads), executor


def print_failures(compared: ComparisonResult, runs: Path) -> int:
    """Print which of the runs in a folder failed and what to do; return the exit code."""
    if not compared.failures:
        return 0
    print(f"lasem: {len(compared.failures)} of {compared.num_made} runs failed:", file=sys.stderr)
    for name, ended in compared.failures.items():
        print(f"  {name}: {ended.error}", file=sys.stderr)
    one = shlex.quote(str(runs / next(iter(compared.failures))))
    print(
        f"The same command tries them again and leaves what is finished as it is; to see more of one: "
        f"lasem run --resume {one} --debug",
        file=sys.stderr,
    )
    return FAILURE
