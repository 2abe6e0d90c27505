"""A run's folder: made once, claimed by one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from filelock import FileLock, Timeout

from lasem.errors import StorageError
from lasem.experiments.config import DEFAULT_NAMES, ExperimentConfig
from lasem.experiments.own import folder_name

CONFIG = "config.yaml"
"""A folder that holds this file holds a run."""

_LOCK = ".lock"


@contextmanager
def claim_new(directory: Path) -> Iterator[None]:
    """Make a folder for a new run and hold it.

    Raises:
        StorageError: if it holds anything, another process holds it, or it cannot be made.
    """
    # a folder of something else gets no lock file
    if not (directory / _LOCK).exists():
        check_free(directory)
    with _held(directory):
        check_free(directory)
        _clear(directory)
        yield


@contextmanager
def claim_run(directory: Path) -> Iterator[None]:
    """Hold the folder of a run that is there.

    Raises:
        StorageError: if it holds no run, or another process holds it.
    """
    check_run(directory)
    with _held(directory):
        _clear(directory)
        yield


def _clear(directory: Path) -> None:
    """Remove what a process left that was killed while it wrote."""
    for left in directory.rglob(".*.tmp"):
        left.unlink(missing_ok=True)


def check_run(directory: Path) -> None:
    """Raise StorageError unless a folder holds a run."""
    if not directory.is_dir():
        raise StorageError(f"Expected the folder of a run; there is no folder {directory}.")
    if not (directory / CONFIG).is_file():
        raise StorageError(
            f"Expected the folder of a run, which holds {CONFIG}; {directory} does not. Give the folder that the run "
            f"was told to write to, or start a new run."
        )


def next_free(parent: Path, config: ExperimentConfig) -> Path:
    """Make the first folder ``STREAM-SHARING-SEARCH-001`` or ``STREAM-METHOD-001``, ... that is not there yet.

    Raises:
        StorageError: if it cannot be made.
    """
    names = {part: folder_name(getattr(config, part)) for part in config.parts if part not in ("net", "training")}
    if names.get("protect") == DEFAULT_NAMES["protect"]:
        del names["protect"]
    stem = "-".join(names.values())
    number = 1
    while True:
        directory = parent / f"{stem}-{number:03d}"
        try:
            directory.mkdir(parents=True)  # fails where another process was quicker
            return directory
        except FileExistsError:
            if not parent.is_dir():
                raise StorageError(f"Expected a folder for runs; {parent} is a file. Choose another.") from None
            number += 1
        except OSError as error:
            raise StorageError(f"Cannot make {directory}: {error.strerror}. Choose another folder.") from error


@contextmanager
def _held(directory: Path) -> Iterator[None]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / _LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        raise StorageError(
            f"Another process is writing to {directory}. Wait until it ends, or choose another folder."
        ) from None
    except OSError as error:
        raise StorageError(f"Cannot write to {directory}: {error.strerror}. Choose another folder.") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def claim_comparison(directory: Path) -> Iterator[None]:
    """Hold the folder of a comparison, new or begun before; the runs in it are claimed by themselves.

    Raises:
        StorageError: if it is a run's own folder, another process holds it, or it cannot be made.
    """
    if directory.exists() and not directory.is_dir():
        raise StorageError(f"Expected a folder for the comparison; {directory} is a file. Choose another.")
    if (directory / CONFIG).exists():
        raise StorageError(f"{directory} holds a run, not a comparison of runs. Choose another folder.")
    with _held(directory):
        yield


def check_free(directory: Path) -> None:
    """Raise StorageError unless a folder is new or empty, but for what a run leaves that is killed at its start."""
    if directory.exists() and not directory.is_dir():
        raise StorageError(f"Expected a new folder for the run; {directory} is a file. Choose another folder.")
    there = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    found = sorted(name for name in there if name != _LOCK and not fnmatch(name, f".{CONFIG}.*.tmp"))
    if CONFIG in found:
        raise StorageError(
            f"{directory} holds a run already. Continue it with --resume {directory}, or choose another folder."
        )
    if found:
        raise StorageError(
            f"Expected a new or empty folder for the run; {directory} holds {', '.join(found[:3])}"
            f"{', ...' if len(found) > 3 else ''}. Choose another folder."
        )
