"""What a command ends with: the table and where the page is."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table


def print_result(run_dir: Path) -> None:
    """Print the final table of a run and the path of the report.

    Raises:
        StorageError: if the folder holds no run, or a file in it is damaged.
    """
    from lasem.report import console_table

    print_table(console_table(run_dir))
    print(f"Report: {run_dir / 'report.html'}")


def print_comparison(directory: Path) -> None:
    """Print the table of a comparison and the path of its page.

    Raises:
        StorageError: if the folder holds no comparison, or a file in it is damaged.
    """
    from lasem.report import comparison_table

    print_table(comparison_table(directory))
    print(f"Comparison: {directory / 'comparison.html'}")


def print_table(table: Table) -> None:
    """Print a table on stdout."""
    # no terminal's width is known in a pipe: wide enough that no cell is cut
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 140).print(table)
