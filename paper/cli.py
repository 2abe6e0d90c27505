"""``lasem reproduce``: a table or figure of the paper, from nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from lasem.cli.choices import COMPARISON, layered, nested
from lasem.cli.command import Typed
from lasem.cli.main import say
from lasem.cli.progress import shown_runs
from lasem.cli.run import find_workers, print_failures, print_table
from lasem.errors import ConfigError, nearest
from lasem.experiments.comparison import methods_to_yaml
from lasem.settings import Range, read_value
from paper.recipe import Findings, Panel, Recipe
from paper.reproduce import RECIPES, RUNS, draw, drawn_recipes
from paper.reproduce import reproduce as make_pages
from paper.streams import SCALES, Scale, ScaleName
from paper.table import Grid

ALL = "all"
_SETTINGS = replace(COMPARISON, elsewhere="")


def reproduce(
    typed: Typed,
    recipe: str,
    *,
    scale: ScaleName = "smoke",
    out: Path | None = None,
    data: Path | None = None,
    download: bool = False,
    workers: Annotated[int, Range(least=1)] | None = None,
    ray: str | None = None,
    print_config: bool = False,
    quiet: bool = False,
    **settings: Annotated[str, _SETTINGS],
) -> int:
    """Make the runs of a table or figure of the paper and draw its page, next to the published numbers.

    A run that is there is not made again, one that was stopped or killed goes on. Another --stream takes the place of
    the recipes' own.

    Args:
        recipe: a recipe, or all.
        scale: made-up data and small networks, for minutes; the paper's streams with this project's settings, for a
            night; what the authors ran.
        out: folder of runs and pages (default: runs/reproduce-SCALE).
        data: folder of the data sets, each in a folder of its stream's name (default: ~/.cache/lasem).
        download: fetch the data sets that are not there.
        ray: make the runs on the Ray cluster with its head at this address, auto or local; see lasem compare.
        print_config: write each recipe's methods with all settings; run nothing.

    Examples:
        lasem reproduce all --scale smoke --workers 2      every table and figure, from digits, in minutes
        lasem reproduce brute-force --scale small --data DATA --workers 2      reads DATA/cifar100, DATA/office-home
        lasem reproduce peak --stream parquet --stream.path DATA --stream.train_per_class 17 --seeds 0,1,2
        RECIPES
    """
    chosen = _chosen(recipe)
    for option in settings:
        if option.startswith("stream.") and "stream" not in settings:
            raise ConfigError(f"--{option} is a setting of --stream, which was not chosen. Choose it, or leave it out.")
    given = layered({}, nested(settings))
    if "preset" in given:
        raise ConfigError("The scale decides the preset: --scale paper has the authors' settings. Leave --preset out.")
    if "seeds" in given:
        given["seeds"] = list(read_value(given["seeds"], tuple[int, ...], "seeds"))
    sized = Scale(name=scale, given=given, data=None if data is None else str(data), download=download)
    if data or download:
        _refuse_data("--data" if data else "--download", sized)
    for left_out in [one for one in chosen if recipe == ALL and not one.serves(sized)]:
        chosen.remove(left_out)
        say(f"Recipe {left_out.name} is left out: no other stream can take its place.", error=True)
    if print_config:
        for one in chosen:
            for panel in one.panels(sized):
                print(f"{_heading(one, panel)}\n{methods_to_yaml(panel.methods)}", end="")
        return 0
    directory = out or Path("runs") / f"reproduce-{scale}"
    # a recipe's runs have one thread unless something else is said
    num_workers, executor = find_workers(workers, ray, 1)
    with shown_runs(directory, typed, num_workers=num_workers, quiet=quiet) as observer:
        drawn, compared = make_pages(
            chosen,
            sized,
            directory,
            num_workers=num_workers,
            executor=executor,
            observer=observer,
            command=typed,
        )
    for name, (page, findings) in drawn.items():
        for section in findings.sections if len(drawn) == 1 else ():
            if isinstance(section, Grid):
                print_table(section.frame.console(section.heading))
        _print(name, page, findings)
    return print_failures(compared, directory / RUNS)


_titles = "\n        ".join(f"{recipe.name:14} {recipe.title}" for recipe in RECIPES.values())
reproduce.__doc__ = (reproduce.__doc__ or "").replace("RECIPES", _titles)


def draw_again(directory: Path) -> None:
    """Draw every page of a folder from the files of its runs, for ``lasem report``."""
    for name in drawn_recipes(directory):
        _print(name, *draw(directory, name))


def _print(name: str, page: Path, findings: Findings) -> None:
    say(f"{name}: {findings.verdict}\nPage: {page}")


def _chosen(name: str) -> list[Recipe]:
    if name == ALL:
        return list(RECIPES.values())
    if name not in RECIPES:
        raise ConfigError(
            f"There is no recipe '{name}' (there are: {', '.join(RECIPES)}, all).{nearest(name, [*RECIPES, ALL])}"
        )
    return [RECIPES[name]]


def _refuse_data(option: str, scale: Scale) -> None:
    """Raise ConfigError where the recipes' data sets are not read."""
    if scale.own_stream:
        raise ConfigError(f"{option} is for the recipes' own streams; got --stream as well. Leave one of them out.")
    if scale.name == SCALES[0]:
        raise ConfigError(
            f"Scale {scale.name} learns digits and reads no data: leave {option} out, or say --scale small."
        )


def _heading(recipe: Recipe, panel: Panel) -> str:
    config = panel.methods[0].config
    stream = ", ".join(f"{name} {value}" for name, value in config.to_plain()["stream"].items() if name != "name")
    seeds = ", ".join(map(str, config.seeds))
    seeds += "" if config.stream_seed is None else f" on the tasks of seed {config.stream_seed}"
    return f"# {recipe.name}: {panel.stream.title}, {len(panel.methods)} methods, seeds {seeds}\n# stream: {stream}"
