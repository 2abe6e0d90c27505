"""``lasem report``: draw the report of a run again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lasem.cli.main import FailedRunError, find_command
from lasem.cli.output import print_comparison, print_result
from lasem.cli.parser import Parser
from lasem.errors import StorageError


def main(argv: Sequence[str]) -> int:
    """Run it; the exit code."""
    parser = Parser(
        prog="lasem report",
        usage="lasem report RUN",
        description="Draw RUN/report.html and RUN/figures from the run's records alone; the run may still be going on. "
        "Of a comparison's folder, draw the comparison again; of a reproduction's, every recipe's page.",
        add_help=False,
    )
    parser.add_argument(
        "run",
        metavar="RUN",
        nargs="?",
        help="folder of a run, such as runs/digits-hps-em-001, of a comparison or of a reproduction",
    )
    options = parser.add_argument_group("options")
    options.add_argument("-h", "--help", action="store_true", help="show this text")
    options.add_argument("--debug", action="store_true", help="show the traceback of an error")
    found = parser.parse_known_options(argv)
    if found.help:
        print(parser.format_help(), end="")
        return 0
    if found.run is None:
        parser.error("expected the folder of a run; got none")
    from lasem.report.comparison import INDEX

    directory = Path(found.run)
    if (directory / "reproduce.json").exists():
        find_command("reproduce").draw_again(directory)
        return 0
    _draw(directory, compared=(directory / INDEX).exists())
    return 0


def _draw(directory: Path, *, compared: bool) -> None:
    from lasem.metrics import load_runs
    from lasem.report import load_comparison, write_comparison, write_report

    # a folder without a run is wrong input; a report that cannot be written is a failure
    (load_comparison if compared else load_runs)(directory)
    try:
        (write_comparison if compared else write_report)(directory)
    except StorageError as error:
        raise FailedRunError from error
    (print_comparison if compared else print_result)(directory)
