"""``lasem report``, and the table and the page's path that other commands end with, too."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lasem.cli.main import FailedRunError, find_module
from lasem.errors import StorageError

if TYPE_CHECKING:
    from rich.table import Table


def report(run: Path) -> int:
    """Draw RUN/report.html and RUN/figures again, from the run's records alone.

    The run may still be going on. Of a comparison's folder, draw the comparison again; of a reproduction's, every
    recipe's page.

    Args:
        run: the folder of a run, such as runs/digits-hps-em-001, of a comparison or of a reproduction.
    """
    from lasem.metrics import load_runs
    from lasem.report import load_comparison, write_comparison, write_report
    from lasem.report.comparison import INDEX

    if (run / "reproduce.json").exists():
        find_module("reproduce").draw_again(run)
        return 0
    compared = (run / INDEX).exists()
    # a folder without a run is wrong input; a report that cannot be written is a failure
    (load_comparison if compared else load_runs)(run)
    try:
        (write_comparison if compared else write_report)(run)
    except StorageError as error:
        raise FailedRunError from error
    (print_comparison if compared else print_result)(run)
    return 0


def print_result(directory: Path) -> None:
    """Print the final table of a run and the path of the report."""
    from lasem.report import console_table

    print_table(console_table(directory))
    print(f"Report: {directory / 'report.html'}")


def print_comparison(directory: Path) -> None:
    """Print the table of a comparison and the path of its page."""
    from lasem.report import comparison_table

    print_table(comparison_table(directory))
    print(f"Comparison: {directory / 'comparison.html'}")


def print_table(table: Table) -> None:
    """Print a table on stdout."""
    from rich.console import Console

    # no terminal's width is known in a pipe: wide enough that no cell is cut
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 140).print(table)
