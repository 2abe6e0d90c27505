"""``lasem report``: draw the report of a run again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lasem.cli.main import FailedRunError
from lasem.cli.output import print_result
from lasem.cli.parser import Parser
from lasem.errors import StorageError


def main(argv: Sequence[str]) -> int:
    """Run it; the exit code."""
    parser = Parser(
        prog="lasem report",
        usage="lasem report RUN",
        description="Draw RUN/report.html and RUN/figures from the run's records alone; the run may still be going on.",
        add_help=False,
    )
    parser.add_argument("run", metavar="RUN", nargs="?", help="folder of a run, such as runs/digits-hps-em-001")
    options = parser.add_argument_group("options")
    options.add_argument("-h", "--help", action="store_true", help="show this text")
    options.add_argument("--debug", action="store_true", help="show the traceback of an error")
    found = parser.parse_known_options(argv)
    if found.help:
        print(parser.format_help(), end="")
        return 0
    if found.run is None:
        parser.error("expected the folder of a run; got none")
    from lasem.metrics import load_runs

    run_dir = Path(found.run)
    load_runs(run_dir)  # a folder without a run is wrong input; a report that cannot be written is a failure
    from lasem.report import write_report

    try:
        write_report(run_dir)
    except StorageError as error:
        raise FailedRunError from error
    print_result(run_dir)
    return 0
