"""The runs of recipes, shared where two recipes have the same ones, and their pages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from lasem.errors import ConfigError, StorageError
from lasem.experiments.comparison import ComparedMethod, ComparisonObserver, ComparisonResult, compare
from lasem.experiments.grid import AbstractExecutor, local_device
from lasem.experiments.runner import describe_environment
from lasem.files import regular_bytes, write_file
from lasem.learner.learner import find_device
from lasem.report.experiment import read_environment
from paper import (
    ablations,
    architectures,
    brute_force,
    choice,
    forgetting,
    groups,
    peak,
    planted,
    selection,
    selective,
)
from paper.page import write_page
from paper.recipe import Findings, Panel, Recipe
from paper.runs import load_panel
from paper.streams import Scale

RECIPES: Final[dict[str, Recipe]] = {
    module.RECIPE.name: module.RECIPE
    for module in (
        *(architectures, peak, brute_force, forgetting, selective, groups, selection, ablations),
        *(choice, planted),
    )
}
"""Every recipe by name, in the order of the paper."""

INDEX: Final = "reproduce.json"
"""A folder that holds this file holds recipes' pages and runs."""

RUNS: Final = "runs"
"""Where the runs are, in such a folder."""


def reproduce(
    recipes: Sequence[Recipe],
    scale: Scale,
    directory: str | Path,
    *,
    num_workers: int = 1,
    executor: AbstractExecutor | None = None,
    observer: ComparisonObserver | None = None,
    command: Sequence[str] = (),
) -> tuple[dict[str, tuple[Path, Findings]], ComparisonResult]:
    """Make the runs of some recipes that are missing, resume those that were stopped, and draw the pages.

    Runs are in ``directory/runs/STREAM/METHOD-SEED``; two recipes that have a run in common share it.

    Args:
        recipes: what to make.
        scale: how large the runs are, with a person's settings.
        directory: for runs and pages; what is there with the same settings is not made again.
        num_workers: as in ``compare``; the pages are the same for any number.
        executor: as in ``compare``.
        observer: as in ``compare``.
        command: what a person typed, for the files.

    Returns:
        Page and findings by recipe, and how the runs ended.

    Raises:
        LasemError: as ``compare``, before anything is run.
    """
    path = Path(directory)
    panels = {recipe.name: recipe.panels(scale) for recipe in recipes}
    merged = merge_methods([panel for of in panels.values() for panel in of])
    first = next(iter(merged.values()))[0].config
    about = describe_environment(find_device(local_device(first.device, executor)), command, None)
    compared = compare(
        {f"{RUNS}/{key}": methods for key, methods in merged.items()},
        path,
        num_workers=num_workers,
        executor=executor,
        observer=observer,
        command=command,
        add=True,
        begin=lambda: keep_index(path, scale, panels, about),
    )
    return {recipe.name: draw(path, recipe.name) for recipe in recipes}, compared


def merge_methods(panels: Sequence[Panel]) -> dict[str, list[ComparedMethod]]:
    """Return the methods of every stream, each once.

    Raises:
        ConfigError: if two recipes have different methods of one label.
    """
    merged: dict[str, dict[str, ComparedMethod]] = {}
    for panel in panels:
        of_stream = merged.setdefault(panel.stream.key, {})
        for method in panel.methods:
            if of_stream.setdefault(method.label, method).config != method.config:
                raise ConfigError(
                    f"Two recipes mean different methods by '{method.label}' on {panel.stream.key}. Make them in two "
                    f"folders."
                )
    return {key: list(of.values()) for key, of in merged.items()}


def keep_index(
    directory: Path, scale: Scale, panels: Mapping[str, Sequence[Panel]], about: Mapping[str, object]
) -> None:
    """Write down which runs belong to which recipe, and keep what the folder holds of others.

    Args:
        directory: the folder.
        scale: the scale.
        panels: by recipe.
        about: the environment.
    """
    index = _read_index(directory) if (directory / INDEX).exists() else {}
    for name, of in panels.items():
        index[name] = {
            "scale": scale.name,
            "seeds": list(of[0].methods[0].config.seeds),
            "panels": [
                {
                    "key": panel.stream.key,
                    "title": panel.stream.title,
                    "stands_for": panel.stream.stands_for,
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
    panels = [load_panel(directory, f"{RUNS}/{of['key']}", seeds=entry["seeds"], **of) for of in entry["panels"]]
    findings = RECIPES[name].draw(panels)
    flat = read_environment(directory / INDEX, name)
    made_with = {key.partition(".")[2]: text for key, text in flat.items() if key.startswith("environment.")}
    page = write_page(directory, RECIPES[name], panels, findings, scale=entry["scale"], environment=made_with)
    return page, findings


def drawn_recipes(directory: Path) -> list[str]:
    """Return the recipes that a folder holds.

    Raises:
        StorageError: if it holds none.
    """
    return list(_read_index(directory))


def _read_index(directory: Path) -> dict[str, Any]:
    path = directory / INDEX
    try:
        entry = json.loads(regular_bytes(path))
    except OSError as error:
        raise StorageError(f"Expected recipes with {path}; {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise StorageError(f"Expected recipes as JSON in {path}; got another file.") from error
    if not isinstance(entry, dict):
        raise StorageError(f"Expected recipes by name as JSON in {path}; got another file.")
    return entry
