"""Recipes made: their runs, shared where two recipes have the same ones, and their pages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from lasem.errors import ConfigError, StorageError
from lasem.experiments import environment
from lasem.experiments.comparison import Compared, ComparisonObserver, Contestant, compare_all
from lasem.experiments.cradle import AbstractCradle, device_here
from lasem.files import write_file
from lasem.learner.learner import find_device
from lasem.report.experiment import read_environment
from paper import RECIPES, Bench, Panel, Recipe
from paper.page import Findings, Page, load_panel, write_recipe

INDEX = "reproduce.json"
"""A folder that holds this file holds recipes' pages and runs."""

RUNS = "runs"
"""Where the runs are, in such a folder."""


@final
@dataclass(frozen=True)
class Reproduced:
    """What recipes have come to."""

    pages: dict[str, Path]
    """By recipe."""
    findings: dict[str, Findings]
    compared: Compared


def reproduce(
    recipes: Sequence[Recipe],
    bench: Bench,
    directory: str | Path,
    *,
    num_workers: int = 1,
    cradle: AbstractCradle | None = None,
    observer: ComparisonObserver | None = None,
    command: Sequence[str] = (),
) -> Reproduced:
    """Make the runs of some recipes that are missing, resume those that were stopped, and draw the pages.

    Runs are in ``directory/runs/STREAM/METHOD-SEED``; two recipes that have a run in common share it.

    Args:
        recipes: what to make.
        bench: at which scale, with which settings above it.
        directory: for runs and pages; what is there with the same settings is not made again.
        num_workers: runs at a time, each in a process of its own; the pages are the same for any number.
        cradle: where these processes are started, closed at the end; on this machine if there is none.
        observer: is told how it goes.
        command: what a person typed, for the files.

    Raises:
        LasemError: as ``compare``, before anything is run.
    """
    path = Path(directory)
    panels = {recipe.name: recipe.panels(bench) for recipe in recipes}
    merged = _merged([panel for of in panels.values() for panel in of])
    first = next(iter(merged.values()))[0].config
    about = environment.describe(find_device(device_here(first.device, cradle)), command, None)
    compared = compare_all(
        [(methods, path / RUNS / key) for key, methods in merged.items()],
        path,
        num_workers=num_workers,
        cradle=cradle,
        observer=observer,
        command=command,
        add=True,
        begin=lambda: keep_index(path, bench, panels, about),
    )
    drawn = {recipe.name: draw(path, recipe.name) for recipe in recipes}
    pages = {name: page for name, (page, _) in drawn.items()}
    return Reproduced(pages, {name: findings for name, (_, findings) in drawn.items()}, compared)


def keep_index(
    directory: Path, bench: Bench, panels: Mapping[str, Sequence[Panel]], about: Mapping[str, object]
) -> None:
    """Write down which runs belong to which recipe, beside what the folder holds of others.

    Args:
        directory: the folder.
        bench: the scale.
        panels: by recipe.
        about: the environment.
    """
    index = _read_index(directory) if (directory / INDEX).exists() else {}
    for name, of in panels.items():
        index[name] = {
            "scale": bench.scale,
            "seeds": list(of[0].methods[0].config.seeds),
            "panels": [
                {
                    "key": panel.key,
                    "title": panel.title,
                    "stands_for": panel.stands_for,
                    "methods": [method.label for method in panel.methods],
                }
                for panel in of
            ],
            "environment": dict(about),
        }
    write_file(directory / INDEX, json.dumps(index, indent=1) + "\n")


def draw(directory: Path, name: str) -> tuple[Path, Findings]:
    """Draw the page of a recipe from the files of its runs.

    Raises:
        StorageError: if the folder does not hold the recipe, or a file is damaged.
    """
    directory = Path(directory)
    entry = _read_index(directory).get(name)
    if entry is None or name not in RECIPES:
        raise StorageError(f"Expected recipe '{name}' in {directory / INDEX}; it is not there. Run lasem reproduce.")
    panels = [
        load_panel(
            directory,
            key=panel["key"],
            title=panel["title"],
            stands_for=panel["stands_for"],
            folder=f"{RUNS}/{panel['key']}",
            labels=panel["methods"],
            seeds=entry["seeds"],
        )
        for panel in entry["panels"]
    ]
    recipe = RECIPES[name]
    findings = recipe.draw(panels)
    about = read_environment(directory / INDEX, name)
    environments = {
        key.removeprefix("environment."): value for key, value in about.items() if key.startswith("environment.")
    }
    page = Page(
        name=name,
        title=recipe.title,
        about=recipe.about,
        scale=entry["scale"],
        environment={key: value for key, value in environments.items() if key != "command"},
        command=environments.get("command"),
    )
    return write_recipe(directory, page, panels, findings), findings


def drawn_recipes(directory: Path) -> list[str]:
    """The recipes that a folder holds.

    Raises:
        StorageError: if it holds none.
    """
    return list(_read_index(directory))


def _read_index(directory: Path) -> dict[str, Any]:
    path = directory / INDEX
    try:
        entry = json.loads(path.read_bytes())
    except OSError as error:
        raise StorageError(f"Expected recipes with {path}; {error.strerror}.") from error
    except ValueError as error:
        raise StorageError(f"Expected recipes as JSON in {path}; got another file.") from error
    if not isinstance(entry, dict):
        raise StorageError(f"Expected recipes by name as JSON in {path}; got another file.")
    return entry


def _merged(panels: Sequence[Panel]) -> dict[str, list[Contestant]]:
    """The methods of every stream, each once."""
    merged: dict[str, dict[str, Contestant]] = {}
    for panel in panels:
        of_stream = merged.setdefault(panel.key, {})
        for method in panel.methods:
            there = of_stream.setdefault(method.label, method)
            if there.config != method.config:
                raise ConfigError(
                    f"Two recipes mean different methods by '{method.label}' on {panel.key}. Make them in two folders."
                )
    return {key: list(of.values()) for key, of in merged.items()}
