"""``lasem run``: learn a stream of tasks."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lasem.cli.main import FailedRunError
from lasem.cli.options import add_settings, explain_unknown, read_file, read_settings
from lasem.cli.output import print_result
from lasem.cli.parser import Parser
from lasem.cli.progress import make_observer
from lasem.errors import ConfigError, StorageError
from lasem.experiments import ExperimentConfig, run
from lasem.experiments.config import differences
from lasem.experiments.methods import resolve
from lasem.experiments.runner import read_config
from lasem.experiments.yaml_text import from_yaml

_EXAMPLES = """examples:
  lasem run                              the embedded stream of digits, with LASEM
  lasem run --method all                 the same, all layers shared
  lasem run --method ewc                 another method; with --help, its settings
  lasem run --stream parquet --stream.path DATA --sharing dfcnn --seeds 0,1,2
  lasem run --stream parquet --help      the settings of that stream
  lasem run --print-config > my.yaml     all settings, to be changed and used:
  lasem run --config my.yaml
  lasem run --resume runs/digits-hps-em-001    go on after a stop or a kill
"""


def main(argv: Sequence[str]) -> int:
    """Run it; the exit code."""
    parser = Parser(
        prog="lasem run",
        usage="lasem run [options]",
        description="Learn a stream of tasks one after another. Everything is kept in a folder: settings, records, the "
        "model, and at the end a report. A run that was stopped or killed goes on with --resume.",
        add_help=False,
    )
    parser.epilog = _EXAMPLES
    general = parser.add_argument_group("options")
    general.add_argument("-h", "--help", action="store_true", help="show this text; the settings of what is chosen")
    general.add_argument("--out", metavar="DIR", help="new folder for the run (default: the next one in runs/)")
    general.add_argument("--resume", metavar="DIR", help="go on with the run in this folder, with its settings")
    general.add_argument("--config", metavar="FILE", help="settings as YAML; options override them")
    general.add_argument("--print-config", action="store_true", help="write all settings as YAML, and run nothing")
    general.add_argument("--quiet", action="store_true", help="show no progress")
    general.add_argument("--debug", action="store_true", help="show the traceback of an error")
    first, _ = parser.parse_known_args(argv)
    stored = _stored(first, argv)
    add_settings(parser, argv, stored)
    explain_unknown(argv, parser, stored)
    found = parser.parse_known_options(argv)
    if found.help:
        print(parser.format_help(), end="")
        return 0
    config = read_settings(found, stored)
    if found.resume:
        _check_unchanged(config, stored, found.resume)
    if found.print_config:
        print(config.to_yaml(), end="")
        return 0
    return _run(config, found, argv)


def _stored(first: argparse.Namespace, argv: Sequence[str]) -> dict[str, Any]:
    """The settings that the options override: of the file, or of the run to resume."""
    if not first.resume:
        return read_file(first.config, argv)
    for option, value in (("--out", first.out), ("--config", first.config)):
        if value:
            raise ConfigError(f"--resume goes on in a run's own folder with its own settings; got {option} as well.")
    path = Path(first.resume)
    return resolve(from_yaml(read_config(path), str(path / "config.yaml")))


def _check_unchanged(config: ExperimentConfig, stored: Mapping[str, Any], directory: str) -> None:
    for name, old, new in differences(ExperimentConfig.from_plain(stored), config):
        raise ConfigError(
            f"A run goes on with the settings that it was started with; {directory} has {name} = {old}, got {new}. "
            f"Leave --{name.removesuffix('.name')} out, or start a new run."
        )


def _run(config: ExperimentConfig, found: argparse.Namespace, argv: Sequence[str]) -> int:
    observer = make_observer(quiet=found.quiet)
    directory = found.resume or found.out
    try:
        with observer:
            path = run(
                config,
                directory,
                observer=observer,
                resume=bool(found.resume),
                command=("lasem", "run", *argv),
            )
    except KeyboardInterrupt:
        if observer.directory is None:
            raise KeyboardInterrupt("Stopped before training; nothing was written.") from None
        again = f"lasem run --resume {shlex.quote(str(observer.directory))}"
        raise KeyboardInterrupt(f"Stopped. Nothing finished is lost; go on with: {again}") from None
    except Exception as error:
        if observer.directory is None:
            raise
        raise FailedRunError(f"What was learned before is in {observer.directory}.") from error
    if found.resume and not observer.trained:
        print("The run was finished already; its report has been drawn again.", file=sys.stderr)
    try:
        print_result(path)
    except StorageError as error:
        raise FailedRunError(f"The run is finished, in {os.fspath(path)}.") from error
    return 0
