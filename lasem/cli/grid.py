"""A grid of runs, whichever command makes it: how many at a time and where, and what it ends with."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lasem.cli.compare_progress import ComparisonShown
from lasem.cli.main import FAILURE, FailedRunError
from lasem.experiments.comparison import Compared
from lasem.experiments.cradle import AbstractCradle
from lasem.settings import read_value


def add_workers(options: argparse._ArgumentGroup) -> None:
    """Add the options that ``read_workers`` reads."""
    options.add_argument(
        "--workers",
        metavar="N",
        help="runs at a time, each in a process of its own (default: 1; with --ray as many as there is room for)",
    )
    options.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="make the runs on a Ray cluster: the address of its head; auto: the one that this machine belongs to; "
        "local: this machine as one. Its machines need lasem, and the folders of runs and data under the same paths",
    )


def read_workers(found: argparse.Namespace, threads: int) -> tuple[int, AbstractCradle | None]:
    """How many runs at a time, and where their processes are started; None: on this machine.

    Args:
        found: the options.
        threads: of each run.

    Raises:
        ConfigError: if the number is none, ray is not installed, or there is no cluster at the address.
    """
    num_workers = read_value(found.workers or "1", int, "--workers")
    if found.ray is None:
        return num_workers, None
    from lasem.experiments.ray_cradle import RayCradle

    cradle = RayCradle(found.ray)
    return num_workers if found.workers else cradle.room(threads), cradle


@contextmanager
def told(observer: ComparisonShown, directory: Path, command: Sequence[str]) -> Iterator[None]:
    """Show how the runs inside go on; say of Ctrl-C and of an error what is left and how to go on.

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


def tell_failures(compared: Compared, runs: Path) -> int:
    """Say which runs failed and what to do; the exit code.

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
