"""One process at a time changes a model; whoever only reads it asks for nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lasem.errors import StorageError

_LOCK = ".lock"


@contextmanager
def claimed(directory: Path, wait: float) -> Iterator[None]:
    """Hold a model's folder, which is made if it is not there.

    Args:
        directory: the model's folder.
        wait: seconds to wait for another process.

    Raises:
        StorageError: if another process still holds it then, or it cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / _LOCK, timeout=max(wait, 0))
        lock.acquire()
    except Timeout:
        waited = f" for {wait:g} seconds" if wait > 0 else ""
        raise StorageError(
            f"Another process is changing the model in {directory}{waited}. Try again when it has ended, or wait for "
            f"it with --wait SECONDS."
        ) from None
    except OSError as error:
        raise StorageError(f"Cannot write to {directory}: {error.strerror}. Nothing was changed.") from error
    try:
        yield
    finally:
        lock.release()


def sweep(directory: Path) -> None:
    """Remove the files of a model's folder that a process was killed over while it wrote them (``write_file``)."""
    for left in directory.rglob(".*.*.tmp"):
        if not left.is_dir():  # a task may be called like that
            left.unlink(missing_ok=True)
