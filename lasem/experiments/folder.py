"""The folder of a run: made once, and held by one process at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from filelock import FileLock, Timeout

from lasem.errors import StorageError
from lasem.experiments.config import ExperimentConfig
from lasem.experiments.parts import DEFAULT_NAMES, folder_name

CONFIG = "config.yaml"
"""A folder that holds this file holds a run."""

_LOCK = ".lock"


@contextmanager
def locked(directory: Path, check: Callable[[Path], None]) -> Iterator[None]:
    """Hold a folder, which is made if it does not exist.

    Args:
        directory: the folder.
        check: raises StorageError if the folder holds something else than it must: ``check_free``, ``check_run`` or
            ``check_comparison``.

    Raises:
        StorageError: as ``check``, or if another process holds the folder, or it cannot be made.
    """
    if not (directory / _LOCK).exists():
        check(directory)  # a folder of something else gets no lock file
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
        check(directory)
        yield
    finally:
        lock.release()


def check_free(directory: Path) -> None:
    """Raise StorageError unless a folder is new or empty, except for what a run leaves that is killed at its start."""
    if directory.exists() and not directory.is_dir():
        raise StorageError(f"Expected a new folder for the run; {directory} is a file. Choose another folder.")
    names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    taken = sorted(name for name in names if name != _LOCK and not fnmatch(name, f".{CONFIG}.*.tmp"))
    if CONFIG in taken:
        raise StorageError(
            f"{directory} holds a run already. Continue it with --resume {directory}, or choose another folder."
        )
    if taken:
        raise StorageError(
            f"Expected a new or empty folder for the run; {directory} holds {', '.join(taken[:3])}"
            f"{', ...' if len(taken) > 3 else ''}. Choose another folder."
        )


def check_run(directory: Path) -> None:
    """Raise StorageError unless a folder holds a run."""
    if not directory.is_dir():
        raise StorageError(f"Expected the folder of a run; there is no folder {directory}.")
    if not (directory / CONFIG).is_file():
        raise StorageError(
            f"Expected the folder of a run, which holds {CONFIG}; {directory} does not. Give the folder that the run "
            f"writes to, or start a new run."
        )


def check_comparison(directory: Path) -> None:
    """Raise StorageError if a folder cannot be that of a comparison, new or begun before."""
    if directory.exists() and not directory.is_dir():
        raise StorageError(f"Expected a folder for the comparison; {directory} is a file. Choose another.")
    if (directory / CONFIG).exists():
        raise StorageError(f"{directory} holds a run, not a comparison of runs. Choose another folder.")


def next_free(parent: Path, config: ExperimentConfig) -> Path:
    """Make the first folder ``STREAM-SHARING-SEARCH-001`` or ``STREAM-METHOD-001``, ... that does not exist yet.

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
