"""``lasem reproduce``: a table or figure of the paper, from nothing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from lasem.cli.compare_progress import make_comparison_observer
from lasem.cli.grid import add_workers, read_workers, tell_failures, told
from lasem.cli.options import COMMON_PARTS, add_settings, explain_unknown, read_entry, read_file
from lasem.cli.parser import Parser
from lasem.errors import ConfigError, check_choice, nearest
from lasem.experiments.comparison import methods_to_yaml
from lasem.experiments.config import ExperimentConfig
from lasem.settings import read_value
from paper import RECIPES, SCALES, Bench, Panel, Recipe
from paper.page import Findings, Grid, recipe_table
from paper.reproduce import RUNS, draw, drawn_recipes, reproduce

ALL = "all"

_EXAMPLES = """examples:
  lasem reproduce all --scale smoke --workers 2        every table and figure, from stand-ins, in minutes
  lasem reproduce brute-force --scale small --data DATA --workers 2      reads DATA/cifar100 and DATA/office-home
  lasem reproduce peak --stream parquet --stream.path DATA --stream.train_per_class 17 --seeds 0,1,2
"""


def main(argv: Sequence[str]) -> int:
    """Run it; the exit code."""
    name = argv[0] if argv and not argv[0].startswith("-") else None
    options = list(argv[1:] if name is not None else argv)
    parser = Parser(
        prog="lasem reproduce",
        usage="lasem reproduce RECIPE|all [options]",
        description="Make the runs of a table or figure of the paper and draw its page, with the published numbers "
        "beside. A run that is there is not made again, one that was stopped or killed goes on.",
        add_help=False,
    )
    width = max(map(len, RECIPES))
    recipes = "\n".join(f"  {recipe.name:{width}}  {recipe.title}" for recipe in RECIPES.values())
    parser.epilog = f"recipes:\n{recipes}\n\n{_EXAMPLES}"
    general = parser.add_argument_group("options")
    general.add_argument("-h", "--help", action="store_true", help="show this text")
    general.add_argument(
        "--scale",
        metavar="NAME",
        help=f"{', '.join(SCALES[:-1])} or {SCALES[-1]}: made-up data and small networks, for minutes; the paper's "
        "streams with this project's settings, for a night; what the authors ran (default: smoke)",
    )
    general.add_argument("--out", metavar="DIR", help="folder of runs and pages (default: runs/reproduce-SCALE)")
    general.add_argument(
        "--data",
        metavar="DIR",
        help="folder of the data sets, each in a folder of its stream's name (default: ~/.cache/lasem)",
    )
    general.add_argument("--download", action="store_true", help="fetch the data sets that are not there")
    add_workers(general)
    general.add_argument(
        "--print-config", action="store_true", help="write each recipe's methods with all settings; run nothing"
    )
    general.add_argument("--quiet", action="store_true", help="show no progress")
    general.add_argument("--debug", action="store_true", help="show the traceback of an error")
    first, _ = parser.parse_known_args(options)
    stored = read_file(None, options)
    if any(word.split("=")[0] == "--stream" for word in options):
        add_settings(parser, options, stored, COMMON_PARTS)
    else:  # the recipes' own streams, whose settings are theirs
        general.add_argument("--stream", metavar="NAME", help="learn this stream in the place of the recipe's own")
        add_settings(parser, options, stored, [part for part in COMMON_PARTS if part != "stream"])
    explain_unknown(options, parser, stored)
    found = parser.parse_known_options(options)
    if found.help:
        print(parser.format_help(), end="")
        return 0
    chosen = _chosen(name)
    scale = first.scale or SCALES[0]
    check_choice("scale", scale, SCALES)
    given = read_entry(found, stored)
    if "preset" in given:
        raise ConfigError("The scale decides the preset: --scale paper has the authors' settings. Leave --preset out.")
    if "seeds" in given:
        given["seeds"] = list(read_value(given["seeds"], tuple[int, ...], "seeds"))
    if found.data or found.download:
        _refuse_data("--data" if found.data else "--download", scale, own_stream="stream" in given)
    bench = Bench(scale=scale, given=given, depth=_depth(given), data=found.data, download=found.download)
    directory = Path(found.out) if found.out else Path("runs") / f"reproduce-{scale}"
    if name == ALL:
        for recipe in [recipe for recipe in chosen if not recipe.serves(bench)]:
            chosen.remove(recipe)
            print(f"Recipe {recipe.name} is left out: no other stream can take its place.", file=sys.stderr)
    if found.print_config:
        for recipe in chosen:
            for panel in recipe.panels(bench):
                print(f"{_heading(recipe, panel)}\n{methods_to_yaml(panel.methods)}", end="")
        return 0
    return _reproduce(chosen, bench, directory, found, argv)


def draw_again(directory: Path) -> None:
    """Draw every page of a folder from the files of its runs, for ``lasem report``."""
    for name in drawn_recipes(directory):
        page, findings = draw(directory, name)
        print(f"{name}: {findings.verdict}\nPage: {page}")


def _heading(recipe: Recipe, panel: Panel) -> str:
    config = panel.methods[0].config
    stream = ", ".join(f"{name} {value}" for name, value in config.to_plain()["stream"].items() if name != "name")
    seeds = ", ".join(map(str, config.seeds))
    return f"# {recipe.name}: {panel.title}, {len(panel.methods)} methods, seeds {seeds}\n# stream: {stream}"


def _chosen(name: str | None) -> list[Recipe]:
    if name is None:
        raise ConfigError(f"Expected a recipe, or all (there are: {', '.join(RECIPES)}). See lasem reproduce --help.")
    if name == ALL:
        return list(RECIPES.values())
    if name not in RECIPES:
        raise ConfigError(
            f"There is no recipe '{name}' (there are: {', '.join(RECIPES)}, all).{nearest(name, [*RECIPES, ALL])}"
        )
    return [RECIPES[name]]


def _refuse_data(option: str, scale: str, *, own_stream: bool) -> None:
    """Raise ConfigError where the recipes' data sets are not read."""
    if own_stream:
        raise ConfigError(f"{option} is for the recipes' own streams; got --stream as well. Leave one of them out.")
    if scale == SCALES[0]:
        raise ConfigError(
            f"Scale {scale} learns stand-ins and reads no data: leave {option} out, or say --scale small."
        )


def _depth(given: dict[str, object]) -> int | None:
    """How many layers a person's own stream's network has; None if the stream is the recipes'."""
    if "name" not in dict(given.get("stream") or {}):  # type: ignore[call-overload]
        return None
    config = ExperimentConfig.from_plain({part: given[part] for part in ("stream", "net") if part in given})
    task = next(iter(config.stream.open(0)))
    return config.build_net(task.image_shape).depth


def _reproduce(
    chosen: Sequence[Recipe], bench: Bench, directory: Path, found: argparse.Namespace, argv: Sequence[str]
) -> int:
    command = ("lasem", "reproduce", *argv)
    workers, cradle = read_workers(found, 1)  # a recipe's runs have one thread unless something else is said
    observer = make_comparison_observer(quiet=found.quiet, num_workers=workers)
    with told(observer, directory, command):
        made = reproduce(
            chosen, bench, directory, num_workers=workers, cradle=cradle, observer=observer, command=command
        )
    _print(made.findings, made.pages)
    return tell_failures(made.compared, directory / RUNS)


def _print(findings: dict[str, Findings], pages: dict[str, Path]) -> None:
    # no terminal's width is known in a pipe: wide enough that no cell is cut
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160)
    for name, found in findings.items():
        if len(findings) == 1:
            for section in found.sections:
                if isinstance(section, Grid):
                    console.print(recipe_table(section))
        console.print(f"{name}: {found.verdict}", highlight=False, markup=False, soft_wrap=True)
        print(f"Page: {pages[name]}")
