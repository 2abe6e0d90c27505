"""What a run ends with: the table and where the report is."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console


def print_result(run_dir: Path) -> None:
    """Print the final table and the path of the report.

    Raises:
        StorageError: if the folder holds no run, or a file in it is damaged.
    """
    from lasem.report import console_table

    # no terminal's width is known in a pipe: wide enough that no cell is cut
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120)
    console.print(console_table(run_dir))
    print(f"Report: {run_dir / 'report.html'}")
