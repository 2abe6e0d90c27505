"""``lasem compare``: several methods on one stream, side by side."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lasem.cli.compare_progress import make_comparison_observer
from lasem.cli.grid import add_workers, read_workers, tell_failures, told
from lasem.cli.options import (
    COMMON_PARTS,
    add_settings,
    explain_unknown,
    names_in_words,
    read_entry,
    read_file,
    read_text,
)
from lasem.cli.output import print_comparison
from lasem.cli.parser import Parser
from lasem.errors import ConfigError
from lasem.experiments import Contestant, compare, contestants
from lasem.experiments.comparison import methods_to_yaml
from lasem.experiments.methods import METHOD_PARTS
from lasem.experiments.yaml_text import list_from_yaml
from lasem.settings import read_value

_EXAMPLES = """examples:
  lasem compare --methods lasem,all,none,ewc --seeds 0,1,2 --workers 2
  lasem compare --methods lasem-tf,darts-tf,all-tf --training.epochs 10 --out runs/tf
  lasem compare --methods-file methods.yaml

in methods.yaml, a method a line, with settings of its own:
  - lasem
  - {name: ewc, label: ewc-strong, method: {strength: 20000}}
  - {name: lasem-tf, search: {commit_share: 0.2}, training: {learning_rate: 0.001}}
"""


def main(argv: Sequence[str]) -> int:
    """Run it; the exit code."""
    parser = Parser(
        prog="lasem compare",
        usage="lasem compare --methods NAME,NAME,... [options]",
        description="Learn a stream with several methods, each with every seed. A run that is there is not made again, "
        "one that was stopped or killed goes on. Every run has its own folder and report; the comparison is one table "
        "and one figure.",
        add_help=False,
    )
    parser.epilog = _EXAMPLES
    general = parser.add_argument_group("options")
    general.add_argument("-h", "--help", action="store_true", help="show this text")
    general.add_argument("--methods", metavar="NAME,NAME,...", help=f"what to compare: {names_in_words()}")
    general.add_argument("--methods-file", metavar="FILE", help="methods with settings of their own, as YAML")
    general.add_argument("--out", metavar="DIR", help="the comparison's folder (default: runs/compare-STREAM)")
    add_workers(general)
    general.add_argument("--config", metavar="FILE", help="settings of all methods as YAML; options override them")
    general.add_argument(
        "--print-config", action="store_true", help="write the methods with all settings, a methods file; run nothing"
    )
    general.add_argument("--quiet", action="store_true", help="show no progress")
    general.add_argument("--debug", action="store_true", help="show the traceback of an error")
    _refuse_choices(argv)
    first, _ = parser.parse_known_args(argv)
    stored = read_file(first.config, argv)
    for part in ("method", *METHOD_PARTS):
        if part in stored:
            raise ConfigError(f"{first.config} sets {part}; {_WHERE}")
    add_settings(parser, argv, stored, COMMON_PARTS)
    explain_unknown(argv, parser, stored)
    found = parser.parse_known_options(argv)
    if found.help:
        print(parser.format_help(), end="")
        return 0
    if not (found.methods or found.methods_file):
        parser.error("expected --methods or --methods-file; got neither")
    base = read_entry(found, stored)
    names = read_value(found.methods or "", tuple[str, ...], "--methods")
    entries = list_from_yaml(read_text(found.methods_file), found.methods_file) if found.methods_file else []
    methods = contestants(base, names, entries)
    if found.print_config:
        print(methods_to_yaml(methods), end="")
        return 0
    directory = (
        Path(found.out) if found.out else Path("runs") / f"compare-{methods[0].config.to_plain()['stream']['name']}"
    )
    return _compare(methods, directory, found, argv)


_WHERE = (
    "in a comparison each method has its own. Name it in --methods, such as lasem-tf or darts, or in a --methods-file."
)


def _refuse_choices(argv: Sequence[str]) -> None:
    for word in argv:
        option = word.split("=")[0]
        if option.removeprefix("--").partition(".")[0] in ("method", *METHOD_PARTS) and option.startswith("--"):
            raise ConfigError(f"{option} is an option of lasem run; {_WHERE}")


def _compare(methods: Sequence[Contestant], directory: Path, found: argparse.Namespace, argv: Sequence[str]) -> int:
    command = ("lasem", "compare", *argv)
    workers, cradle = read_workers(found, methods[0].config.threads)
    observer = make_comparison_observer(quiet=found.quiet, num_workers=workers)
    with told(observer, directory, command):
        compared = compare(methods, directory, num_workers=workers, cradle=cradle, observer=observer, command=command)
    print_comparison(compared.directory)
    return tell_failures(compared, compared.directory)
