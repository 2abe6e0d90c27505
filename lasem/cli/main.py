"""The command ``lasem``: finds the subcommand, and turns its end into an exit code.

Exit codes: 0, 1 for a failure, 2 for wrong input, 130 for Ctrl-C. Commands are imported when they are called, and
``lasem --help`` does not wait for torch.
"""

import importlib
import os
import re
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Any

from lasem.errors import ConfigError, LasemError, StorageError, TrainingError, nearest, printable

COMMANDS = {
    "run": ("lasem.cli.run", "learn a stream of tasks; everything is kept in a folder"),
    "compare": ("lasem.cli.run", "learn it with several methods side by side: a table, a figure"),
    "reproduce": ("paper.cli", "make a table or figure of the paper, its runs and its page"),
    "report": ("lasem.cli.run", "draw the page of a run, comparison or growing model, from its files"),
    "bench": ("benchmarks.cli", "measure what searches cost on this machine"),
    "learn": ("lasem.cli.model", "add a task to a growing model, from a folder or a parquet file"),
    "predict": ("lasem.cli.model", "let a growing model answer for images"),
    "serve": ("lasem.cli.model", "let it answer over HTTP"),
    "evaluate": ("lasem.cli.model", "measure a task of a growing model on labelled images"),
    "show": ("lasem.cli.model", "what a growing model holds, task by task"),
    "frontier": ("lasem.cli.model", "what other choices of layers would cost a task, and bring"),
    "forget": ("lasem.cli.model", "give up a task of a growing model"),
    "push": ("lasem.cli.model", "share a growing model on the Hugging Face hub, or in a folder"),
    "pull": ("lasem.cli.model", "fetch one from there"),
    "export": ("lasem.cli.model", "write one task as a plain network: ONNX, torch or safetensors"),
}
"""The module of each command, which has a function of the command's name, and what it does. Those outside of lasem are
in packages of the repository that a plain installation leaves out."""

FAILURE, WRONG_INPUT, INTERRUPTED = 1, 2, 130
_OPTIONS = {
    "-h, --help": "show this text, or after a command its options",
    "--version": "show lasem's version",
    "--debug": "show the traceback of an error",
}
_NO_MEMORY = re.compile("(allocate|out of) memory|Storage size calculation overflow")
"""What torch says of a tensor that is too large."""


class FailedRunError(Exception):
    """An error after the input was found to be right; its cause says what happened."""


def say(text: str, *, error: bool = False) -> None:
    """Print lines on stdout or stderr, where no name in them can do anything to a terminal."""
    print("\n".join(map(printable, text.split("\n"))), file=sys.stderr if error else sys.stdout, flush=error)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    _prepare_output()
    try:
        try:
            code = _dispatch([word for word in words if word != "--debug"])
            sys.stdout.flush()
            return code
        except KeyboardInterrupt as stop:
            say(stop.args[0] if stop.args else "Stopped.", error=True)
            return INTERRUPTED
        except Exception as error:
            return _describe(error, debug)
    except OSError:  # the reader of what is printed has gone, or the disk is full: what is left in memory goes nowhere
        for stream in (sys.stdout, sys.stderr):
            with suppress(ValueError):  # it is no file
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return FAILURE


def _prepare_output() -> None:
    """Let a terminal that cannot show a character show a question mark, and open what was closed, to nothing."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
            os.set_inheritable(getattr(sys, name).fileno(), True)  # else a process of a run takes its number for a pipe
        if mode == "w" and hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="replace")


def _dispatch(words: list[str]) -> int:
    name = words[0] if words else "--help"
    if name in ("-h", "--help"):
        print(_help(), end="")
        return 0
    if name == "--version":
        print(f"lasem {version('lasem')}")
        return 0
    if name not in COMMANDS:
        known = ("--help", "--version", "--debug") if name.startswith("-") else COMMANDS
        what = "option" if name.startswith("-") else "command"
        raise ConfigError(f"There is no {what} '{name}' (there are: {', '.join(known)}).{nearest(name, known)}")
    from lasem.cli.command import Command

    try:
        os.getcwd()
    except FileNotFoundError:
        raise ConfigError("The current folder was removed. Go into another one: cd FOLDER.") from None
    return Command(name, getattr(find_module(name), name))(words[1:])


def find_module(name: str) -> Any:
    """Import the module of a command; ConfigError if it belongs to a package that is not installed."""
    module = COMMANDS[name][0]
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if package == "lasem" or error.name not in (package, module):
            raise
        raise ConfigError(
            f"lasem {name} needs the package '{package}' of lasem's repository, which is not installed. Clone the "
            f"repository and install it with: pip install -e REPOSITORY. In its folder python -m {package} runs too."
        ) from error


def _help() -> str:
    commands = "".join(f"  {name:10}{text}\n" for name, (_, text) in COMMANDS.items())
    options = "".join(f"  {name:12}{text}\n" for name, text in _OPTIONS.items())
    return (
        "usage: lasem COMMAND [options]\n\n"
        "Lifelong learning with selective layer transfer: tasks arrive one after another,\n"
        "and for each layer it is decided whether to transfer shared knowledge or to\nlearn anew.\n\n"
        f"commands (lasem COMMAND --help shows more):\n{commands}\noptions:\n{options}"
    )


def _describe(error: Exception, debug: bool) -> int:
    """Print one message, and the traceback if it was asked for; return the exit code."""
    if debug:
        traceback.print_exception(error)
    failed = isinstance(error, FailedRunError)
    cause = error.__cause__ if isinstance(error, FailedRunError) and error.__cause__ else error
    if isinstance(cause, BrokenPipeError):
        raise cause
    if isinstance(cause, LasemError):
        say(f"lasem: {printable(str(cause))}", error=True)
    elif isinstance(cause, OSError):
        say(f"lasem: Cannot use {cause.filename or 'standard input or output'}: {cause.strerror or cause}.", error=True)
    elif isinstance(cause, MemoryError) or _NO_MEMORY.search(str(cause)):
        reason = (str(cause).splitlines() or ["it is too large"])[0]
        say(f"lasem: Expected enough memory; {reason}. Use smaller files, images, layers or batches.", error=True)
    else:
        hint = "" if debug else " Run it again with --debug to see where."
        say(f"lasem: unexpected {type(cause).__name__}: {' '.join(str(cause).split())}.{hint}", error=True)
    if isinstance(error, FailedRunError) and error.args and error.args[0]:
        say(error.args[0], error=True)
    if isinstance(cause, OSError):
        if not cause.filename:
            raise cause
        return FAILURE if failed else WRONG_INPUT
    wrong_input = isinstance(cause, LasemError) and not isinstance(cause, TrainingError)
    return FAILURE if not wrong_input or (failed and isinstance(cause, StorageError)) else WRONG_INPUT
