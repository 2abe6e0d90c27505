"""What the commands of a growing model have in common."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from lasem.cli.parser import Parser
from lasem.errors import ConfigError
from lasem.settings import read_value


def model_parser(command: str, usage: str, description: str, examples: str) -> tuple[Parser, argparse._ArgumentGroup]:
    """A parser with the model's folder and the options of every command; and the group that further ones belong to."""
    parser = Parser(prog=f"lasem {command}", usage=f"lasem {command} {usage}", description=description, add_help=False)
    parser.epilog = examples
    parser.add_argument("model", metavar="MODEL", nargs="?", help="the model's folder")
    options = parser.add_argument_group("options")
    options.add_argument("-h", "--help", action="store_true", help="show this text")
    options.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser, options


def add_task(options: argparse._ArgumentGroup) -> None:
    """Add ``--task``."""
    options.add_argument("--task", metavar="NAME", help="the task's name")


def add_device(options: argparse._ArgumentGroup) -> None:
    """Add ``--device``."""
    options.add_argument("--device", metavar="NAME", default="cpu", help="where to compute (default: cpu)")


def add_columns(options: argparse._ArgumentGroup) -> None:
    """Add the columns of a parquet file."""
    for column, what in (("image", "images"), ("label", "classes")):
        options.add_argument(
            f"--{column}-column", metavar="NAME", default=column, help=f"of the {what} in parquet (default: {column})"
        )


def add_wait(options: argparse._ArgumentGroup) -> None:
    """Add ``--wait``."""
    options.add_argument(
        "--wait", metavar="SECONDS", default="0", help="for another process that changes the model (default: 0)"
    )


def read_wait(found: argparse.Namespace) -> float:
    """The seconds of ``--wait``; ConfigError if they are no number or negative."""
    wait: float = read_value(found.wait, float, "--wait")
    if not 0 <= wait < float("inf"):
        raise ConfigError(f"--wait must be at least 0 seconds; got {found.wait}.")
    return wait


def need(parser: Parser, found: argparse.Namespace, *options: str) -> None:
    """Raise ConfigError for the first of some options that was not given."""
    for option in options:
        if getattr(found, option) is None:
            what = "the model's folder" if option == "model" else f"--{option}"
            parser.error(f"expected {what}; got none")


def parse(parser: Parser, argv: Sequence[str]) -> argparse.Namespace | None:
    """What was typed; None if it was help, which is then shown."""
    found = parser.parse_known_options(argv, mixed=True)
    if found.help:
        print(parser.format_help(), end="")
        return None
    return found


def printable(text: str) -> str:
    """A name from a file, in which nothing moves a terminal's cursor."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def percent(share: float | None, unit: str = " %") -> str:
    """For instance ``93.1 %``; a dash for None."""
    return "-" if share is None else f"{100 * share:.1f}{unit}"
