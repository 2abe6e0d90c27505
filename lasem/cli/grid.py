"""What a grid of runs ends with, whichever command made it: all of it, Ctrl-C, an error, or runs that failed."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lasem.cli.compare_progress import ComparisonShown
from lasem.cli.main import FAILURE, FailedRunError
from lasem.experiments.comparison import Compared


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
