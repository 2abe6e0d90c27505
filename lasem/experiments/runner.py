"""A whole run: every seed of an experiment, on disk, and its report."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy
import torch

from lasem.data import TaskStream
from lasem.errors import DataError, StorageError
from lasem.experiments import folder
from lasem.experiments.config import ExperimentConfig, stored_differences
from lasem.experiments.seed_run import Observer, SeedRun, new_learner
from lasem.files import write_file
from lasem.learner.learner import find_device

_SAME = ("python", "torch", "numpy", "lasem", "platform", "device_name", "threads")
"""What the last bits of a run may depend on, of its environment."""


def run(
    config: ExperimentConfig,
    directory: str | Path | None = None,
    *,
    observer: Observer | None = None,
    resume: bool = False,
    command: Sequence[str] = (),
) -> Path:
    """Learn the stream once for each seed, keep everything in a folder, and draw the report.

    Args:
        config: the settings.
        directory: the folder; None: the first free one under ``runs/``.
        observer: is notified of how it goes.
        resume: go on with the run in ``directory``, which must have been started with the same settings.
        command: what a person typed, for ``environment.json``.

    Returns:
        The folder: records, model and accuracy matrix of each seed, and the report; see ``docs/runs.md``.

    Raises:
        ConfigError: if settings are wrong or do not fit each other, or a resumed run has others.
        DataError: if the data do not exist or are not what they must be.
        DeviceError: if the device does not exist.
        StorageError: if the folder cannot be used, or is held by another process.
        TrainingError: if the loss is no longer finite; what was learned before stays.
    """
    observer = observer or Observer()
    with cpu_threads(config.threads):
        opened = [check([config])]  # taken out where it is learned, so that no seed's images wait longer than that
        settings = "" if resume else config.to_yaml()  # before a folder is made: some things cannot be written down
        about = describe_environment(find_device(config.device), command, opened[0].num_tasks)
        if resume and directory is None:
            raise StorageError("Expected the folder of the run to resume; got none. Give directory.")
        path = folder.next_free(Path("runs"), config) if directory is None else Path(directory)
        with folder.locked(path, folder.check_run if resume else folder.check_free):
            for partial in path.rglob(".*.tmp"):  # a process was killed while it wrote it
                partial.unlink(missing_ok=True)
            if resume:
                check_same(config, path, "Resume it with those, or start a new run in another folder.")
            else:
                write_file(path / folder.CONFIG, settings)  # first: from now on it is a run
            _keep_environment(path, about, observer)
            observer.run_starts(config, path)
            for seed in config.seeds:
                seed_run = SeedRun(config, seed, path / "seeds" / str(seed), observer)
                seed_run.finish(opened.pop() if opened else config.stream.open(seed))
            write_report(path)
    return path


def write_report(directory: Path) -> Path:
    """Draw the report of a run from its files."""
    from lasem.report import write_report  # matplotlib takes its time, and only the end needs it

    return write_report(directory)


def check(configs: Sequence[ExperimentConfig]) -> TaskStream:
    """Meet every error that training would meet at its start or in a later seed.

    Args:
        configs: runs of one stream with the same seeds.

    Returns:
        The stream of the first seed, opened.

    Raises:
        ConfigError: if settings do not fit each other, the network or the method.
        DataError: if the data do not exist or are not what they must be.
        DeviceError: if the device does not exist.
    """
    for config in configs:
        find_device(config.device)
    seed, *later_seeds = configs[0].seeds
    stream = configs[0].stream.open(seed)
    first = next(iter(stream), None)
    if first is None:
        raise DataError(f"Expected at least one task in stream '{stream.name}'; got none.")
    for config in configs:
        new_learner(config, first, seed)
    for later in later_seeds:
        configs[0].stream.open(later)
    return stream


def check_same(config: ExperimentConfig, path: Path, advice: str) -> None:
    """Raise StorageError, which ends in an advice, if the run in a folder has other settings or classes."""
    found = stored_differences(read_config(path), str(path / folder.CONFIG), config)
    if found:
        different = "; ".join(f"{name} = {there} there, {here} here" for name, there, here in found[:3])
        more = "; ..." if len(found) > 3 else ""
        raise StorageError(f"{path} holds a run with other settings: {different}{more}. {advice}")


def describe_environment(device: torch.device, command: Sequence[str], num_tasks: int | None) -> dict[str, Any]:
    """Return plain values for ``environment.json``; paths are only those that a person typed in ``command``."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "command": list(command),
        "num_tasks": num_tasks,
        "lasem": version("lasem"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "device_name": name,
    }


def _keep_environment(path: Path, about: dict[str, object], observer: Observer) -> None:
    """Write it once; a run that goes on elsewhere says what has changed."""
    place = path / "environment.json"
    try:
        before = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        write_file(place, json.dumps(about, indent=1) + "\n")
        return
    changed = [f"{key} was {before.get(key)} and is {about[key]}" for key in _SAME if before.get(key) != about[key]]
    if changed:
        observer.note(f"The last digits may differ from a run that was never stopped: {'; '.join(changed)}.")


def read_config(path: Path) -> str:
    """Return the settings of the run in a folder, as YAML.

    Raises:
        StorageError: if it holds no run, or the file cannot be read.
    """
    folder.check_run(path)
    try:
        return (path / folder.CONFIG).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"Expected the settings of a run in {path / folder.CONFIG}; {error}.") from error


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Compute with so many threads of the CPU; 0: with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
