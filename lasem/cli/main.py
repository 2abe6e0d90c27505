"""Finding the subcommand, and what its end means to the shell.

Exit codes: 0, 1 for a failure, 2 for wrong input, 130 for Ctrl-C. Subcommands are imported when they are called: no
``lasem --help`` waits for torch.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from lasem.cli.parser import Parser
from lasem.errors import ConfigError, LasemError, StorageError, TrainingError, nearest

COMMANDS = {
    "run": "learn a stream of tasks; everything is kept in a folder",
    "compare": "learn it with several methods side by side: a table, a figure",
    "reproduce": "make a table or figure of the paper, its runs and its page",
    "report": "draw the report of a run again, from its files",
    "bench": "measure what searches cost on this machine",
    "learn": "add a task to a growing model, from a folder or a parquet file",
    "predict": "let a growing model answer for images",
    "evaluate": "measure a task of a growing model on labelled images",
    "show": "what a growing model holds, task by task",
    "forget": "give up a task of a growing model",
    "export": "write one task as a plain network: ONNX, torch or safetensors",
}
"""Each has a module of its name in this package, with ``main(argv)``, except those of ``BESIDE``."""

BESIDE = {"reproduce": "paper", "bench": "benchmarks"}
"""Commands in packages of the repository that a plain installation leaves out, each in the package's ``cli``."""

FAILURE, WRONG_INPUT, INTERRUPTED = 1, 2, 130


class FailedRunError(Exception):
    """An error that came after the input was found right; its cause says what happened."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character shows a question mark
    try:
        code = _dispatch([word for word in words if word != "--debug"])
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as stop:
        print(stop.args[0] if stop.args else "Stopped.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except Exception as error:
        return _tell(error, debug)


def _dispatch(words: list[str]) -> int:
    command = next((word for word in words if not word.startswith("-")), None)
    if command is None or words[0] != command:
        parser = _parser()
        found = parser.parse_known_options(words)
        print(f"lasem {version('lasem')}" if found.version else parser.format_help(), end="\n" if found.version else "")
        return 0
    if command not in COMMANDS:
        raise ConfigError(
            f"There is no command '{command}' (there are: {', '.join(COMMANDS)}).{nearest(command, COMMANDS)}"
        )
    code: int = find_command(command).main(words[1:])
    return code


def find_command(name: str) -> Any:
    """Import the module of a command.

    Raises:
        ConfigError: if it belongs to a package that is not installed.
    """
    package = BESIDE.get(name)
    if package is None:
        return importlib.import_module(f"lasem.cli.{name}")
    try:
        return importlib.import_module(f"{package}.cli")
    except ModuleNotFoundError as error:
        if error.name not in (package, f"{package}.cli"):
            raise
        raise ConfigError(
            f"lasem {name} needs the package '{package}' of lasem's repository, which is not installed. Clone the "
            f"repository and install it with: pip install -e REPOSITORY. In its folder python -m {package} runs too."
        ) from error


def _parser() -> Parser:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:{width}}  {what}" for name, what in COMMANDS.items())
    parser = Parser(
        prog="lasem",
        usage="lasem COMMAND [options]",
        description="Lifelong learning with selective layer transfer: tasks arrive one after another, and for each "
        "layer it is decided whether to transfer shared knowledge or to learn anew.",
        add_help=False,
    )
    parser.epilog = f"commands (lasem COMMAND --help shows more):\n{lines}"
    options = parser.add_argument_group("options")
    options.add_argument("-h", "--help", action="store_true", help="show this text, or after a command its options")
    options.add_argument("--version", action="store_true", help="show lasem's version")
    options.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _tell(error: Exception, debug: bool) -> int:
    """One message, and the traceback if it was asked for."""
    if debug:
        traceback.print_exception(error)
    failed = isinstance(error, FailedRunError)
    cause = error.__cause__ if isinstance(error, FailedRunError) and error.__cause__ else error
    if isinstance(cause, LasemError):
        print(f"lasem: {cause}", file=sys.stderr)
    else:
        hint = "" if debug else " Run it again with --debug to see where."
        print(f"lasem: unexpected {type(cause).__name__}: {cause}.{hint}", file=sys.stderr)
    if isinstance(error, FailedRunError) and error.args:
        print(error.args[0], file=sys.stderr)
    wrong_input = isinstance(cause, LasemError) and not isinstance(cause, TrainingError)
    return FAILURE if not wrong_input or (failed and isinstance(cause, StorageError)) else WRONG_INPUT
