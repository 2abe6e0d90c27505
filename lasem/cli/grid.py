"""Commands that make a grid of runs: how many at a time and where, the progress, and what they end with."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from lasem.cli.main import FAILURE, FailedRunError
from lasem.cli.progress import Bar, Shown, duration, make_observer
from lasem.experiments import ComparisonObserver, ComparisonResult
from lasem.experiments.grid import AbstractExecutor, Ended, Event, Learned, Noted, Started
from lasem.report.numbers import method_name


class ComparisonShown(ComparisonObserver):
    """A line for each run that ends, and in a terminal one that moves."""

    started = False
    """Whether everything that can be checked before training has been checked."""

    def __init__(self, shown: Shown, *, num_workers: int, moving: bool) -> None:
        """Show it on ``shown``.

        Args:
            shown: where.
            num_workers: runs at a time.
            moving: whether there is a line that moves; a log gets a line a run only.
        """
        self._shown, self._num_workers, self._moving = shown, num_workers, moving

    def __enter__(self) -> ComparisonShown:
        self._shown.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""
        self._shown.__exit__(kind, error, trace)

    def comparison_starts(self, directory: Path, waiting: Sequence[str], finished: Sequence[str]) -> None:
        self.started = True
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
        if self._moving:
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


def make_comparison_observer(*, quiet: bool, num_workers: int) -> ComparisonShown:
    """Return what suits the place that stderr goes to."""
    shown = make_observer(quiet=quiet)
    return ComparisonShown(shown, num_workers=num_workers, moving=isinstance(shown, Bar))


def find_workers(workers: int | None, ray: str | None, threads: int) -> tuple[int, AbstractExecutor | None]:
    """Return how many runs go on at a time, and what makes them; None: processes of this machine.

    Args:
        workers: how many were asked for.
        ray: the address of a Ray cluster.
        threads: of each run.

    Raises:
        ConfigError: if ray is not installed, or there is no cluster at the address.
    """
    if ray is None:
        return workers or 1, None
    from lasem.experiments.ray_executor import RayExecutor

    executor = RayExecutor(ray)
    return workers or executor.max_workers(threads), executor


@contextmanager
def explained(observer: ComparisonShown, directory: Path, command: Sequence[str]) -> Iterator[None]:
    """Show the progress of the runs inside; after Ctrl-C or an error, say what is left and how to go on.

    Args:
        observer: shows it.
        directory: where the runs are.
        command: what a person typed.
    """
    try:
        with observer:
            yield
    except KeyboardInterrupt:
        if not observer.started:
            raise KeyboardInterrupt("Stopped before training; nothing was written.") from None
        raise KeyboardInterrupt(
            f"Stopped. Nothing finished is lost; go on with the same command: {shlex.join(command)}"
        ) from None
    except Exception as error:
        if not observer.started:
            raise
        raise FailedRunError(f"What was learned before is in {directory}.") from error


def print_failures(compared: ComparisonResult, runs: Path) -> int:
    """Print which runs failed and what to do; return the exit code.

    Args:
        compared: what was made.
        runs: the folder in which runs are found by their names.
    """
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
