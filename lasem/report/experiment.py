"""The files of one experiment, read: runs, settings and environment."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lasem.errors import StorageError
from lasem.metrics import Run, load_runs


@dataclass(frozen=True)
class Progress:
    """How far one seed has come."""

    num_learned: int
    num_expected: int
    unfinished_task: str | None
    """The task that was being learned when the files were read."""
    num_epochs: int
    """Epochs of that task so far."""

    @property
    def finished(self) -> bool:
        """Whether every task that is known of was learned and evaluated."""
        return self.unfinished_task is None and 0 < self.num_expected <= self.num_learned


@dataclass(frozen=True)
class Experiment:
    """One experiment: every seed's run, and what is known of how it was made."""

    name: str
    runs: tuple[Run, ...]
    config: str | None
    """``config.yaml`` as it stands, or None."""
    environment: dict[str, str]
    """``environment.json``, flattened: ``torch`` or ``device.name`` to text; a list as the words of a command."""

    @property
    def method(self) -> str | None:
        """The baseline that learned, which has no configurations to choose from; None for sharing and search."""
        method = plain_settings(self.config).get("method")
        name = method.get("name") if isinstance(method, dict) else None
        return name if isinstance(name, str) else None

    def progress(self, run: Run) -> Progress:
        """How far a seed has come: of ``num_tasks`` in environment.json, or of what the seed with most tasks knows."""
        stated = self.environment.get("num_tasks", "")
        known = [len(r.tasks) + (r.unfinished_task is not None) for r in self.runs]
        return Progress(
            num_learned=len(run.evaluated_tasks),
            num_expected=max(*known, int(stated) if stated.isdecimal() else 0, 0),
            unfinished_task=run.unfinished_task,
            num_epochs=len(run.epochs(run.unfinished_task)) if run.unfinished_task is not None else 0,
        )

    @property
    def comparable_runs(self) -> tuple[Run, ...]:
        """The runs to average over: the finished ones, or all if none is finished."""
        return tuple(run for run in self.runs if self.progress(run).finished) or self.runs


def load_experiment(run_dir: Path) -> Experiment:
    """Read the folder of a run, finished or not.

    Raises:
        StorageError: if it is no run's folder, or a file in it is damaged.
    """
    run_dir = Path(run_dir)
    runs = load_runs(run_dir)
    config = _read(run_dir / "config.yaml")
    environment = read_environment(run_dir / "environment.json")
    return Experiment(run_dir.resolve().name, runs, config, environment)


def read_environment(path: Path, key: str | None = None) -> dict[str, str]:
    """A JSON file of what something was made with, flattened; empty if there is none.

    Args:
        path: the file.
        key: where in the file it stands; None: it is all of it.

    Raises:
        StorageError: if it is damaged.
    """
    text = _read(path)
    if text is None:
        return {}
    try:
        entry = json.loads(text)
    except ValueError as error:
        raise StorageError(f"Expected JSON in {path}; {error}. Delete the file to report without it.") from error
    return dict(_flatten(entry if key is None else entry.get(key, {})))


def plain_settings(config: str | None) -> dict[str, Any]:
    """The settings in a ``config.yaml``; empty if it is no YAML of settings, for a report does without them."""
    try:
        found = yaml.safe_load(config or "")
    except (yaml.YAMLError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def flat_settings(plain: dict[str, Any]) -> dict[str, Any]:
    """``part.setting`` of every setting; no deeper, for YAML from a stranger may hold itself."""
    found: dict[str, Any] = {}
    for part, value in plain.items():
        found |= {f"{part}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {part: value}
    return found


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"Expected text in {path}; {error}. Delete the file to report without it.") from error


def _flatten(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flatten(inner, (*path, str(key)))
    elif isinstance(value, list):
        yield ".".join(path), shlex.join(str(item) for item in value)  # a command, to be typed again
    elif value is not None:
        yield ".".join(path), str(value)
