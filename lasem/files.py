"""Files that are whole or absent, written next to their place and renamed; and files that a stranger may have made."""

import errno
import hashlib
import json
import math
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lasem.errors import StorageError

MAX_INDEX_BYTES = 64 * 2**20
"""Of a file of JSON: more than the index of a model of 50,000 tasks needs."""
LOCK = ".lock"


@contextmanager
def locked(folder: Path, busy: str, wait: float = 0) -> Iterator[None]:
    """Hold a folder, which is made if it is not there.

    StorageError: ``busy`` if another process still holds it after ``wait`` seconds; or if it cannot be written.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path) and not (stat.S_ISREG(os.lstat(path).st_mode) and os.lstat(path).st_nlink == 1):
            raise StorageError(f"Expected a lock at {path}, a file of its own; got something else. Remove it.")
        lock = FileLock(path, timeout=max(wait, 0))
        lock.acquire()
    except Timeout:
        raise StorageError(busy) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StorageError(f"Cannot write to {folder}: {reason}. Nothing was changed.") from error
    try:
        yield
    finally:
        lock.release()


def write_file(path: Path, content: bytes | str, *, durable: bool = True) -> None:
    """Replace a file, whose folder is made if need be, in one step; text becomes UTF-8.

    ``durable`` waits until the disk has it, so that even a power cut leaves the old file or the new one. StorageError
    if it cannot be written; the old file stays.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")  # a name that cannot be guessed and planted
    consequence = "What was there before is untouched."
    try:
        make_folder(path.parent, durable=durable)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, path)
            consequence = "It is there, but a power cut may take it back."
        finally:
            temporary.unlink(missing_ok=True)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        raise StorageError(f"Cannot write {path}: {error.strerror}. {consequence}") from error


def make_folder(path: Path, *, durable: bool = True) -> None:
    """Make a folder and those above it, durable as in ``write_file``; OSError if it fails."""
    if path.is_dir():
        return
    make_folder(path.parent, durable=durable)
    path.mkdir(exist_ok=True)
    if durable:
        sync_folder(path.parent)  # a folder's name is kept by the folder above it


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable; Windows, which opens no folder, is trusted with them."""
    directory = getattr(os, "O_DIRECTORY", None)
    if directory is None:
        return
    handle = os.open(path, os.O_RDONLY | directory)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def checksum(data: bytes) -> str:
    """Return the SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def parse_json(path: Path, data: bytes) -> dict[str, Any]:
    """Return the JSON object in a file's bytes; StorageError if there is none."""
    try:
        entry = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise StorageError(f"Expected JSON in {path}; got a damaged file ({error}).") from error
    if not isinstance(entry, dict):
        raise StorageError(f"Expected a JSON object in {path}; got {type(entry).__name__}.")
    return entry


def read_bytes(
    path: Path, expected: str | None = None, *, inside: Path | None = None, max_bytes: float = math.inf
) -> bytes:
    """Return a regular file's bytes; StorageError if it is not there, or has another checksum than ``expected``.

    It must be ``inside`` a folder when links are followed, and no larger than ``max_bytes`` or the machine's memory.
    """
    if inside is not None:
        check_inside(path, inside)
    try:
        data = regular_bytes(path, min(memory(), max_bytes))
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise StorageError(
            f"Expected a saved model with {path}; {getattr(error, 'strerror', None) or error}."
        ) from error
    if expected is not None and checksum(data) != expected:
        raise StorageError(f"{path} has changed since it was saved (its checksum differs); the model is damaged.")
    return data


def regular_bytes(path: Path, max_bytes: float | None = None) -> bytes:
    """Return a file's bytes; OSError if it is no regular file, or larger than allowed (an eighth of the memory)."""
    most = memory() / 8 if max_bytes is None else max_bytes
    # without waiting for what is no file: a pipe would never end
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "it is no file", str(path))
        if about.st_size > most:
            raise OSError(errno.EFBIG, f"expected at most {most:,.0f} bytes, it has {about.st_size:,}", str(path))
        return file.read()


def read_text(path: Path) -> str:
    """Return a file's text; errors as of ``regular_bytes``, and UnicodeDecodeError."""
    return regular_bytes(path).decode()


def memory() -> float:
    """Return the bytes of the machine's memory, where the system says so."""
    pages = os.sysconf_names if hasattr(os, "sysconf") else {}
    known = "SC_PHYS_PAGES" in pages and "SC_PAGE_SIZE" in pages
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else math.inf


def check_inside(path: Path, folder: Path) -> None:
    """Raise StorageError if a path leads out of a folder once symbolic links are followed."""
    try:
        leads_out = not path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # links in a circle
        leads_out = True
    if leads_out:
        raise StorageError(f"Expected {path} inside {folder}; a symbolic link leads out of it. Remove the link.")


def check_links(folder: Path) -> None:
    """Raise StorageError if a symbolic link in a folder, or in one below it, leads out of it."""
    for place in folder.rglob("*"):
        if place.is_symlink():
            check_inside(place, folder)


def append(path: Path, text: str, *, durable: bool = False) -> None:
    """Add text, as UTF-8, to a file in one write; the file and its folder are made if they do not exist.

    A process that is killed may leave a part of it, so let it end with a line break. ``durable`` waits as in
    ``write_file``. StorageError if it cannot be written, or is a link.
    """
    flag = getattr(os, "O_NOFOLLOW", 0)  # a link that somebody planted may lead anywhere
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab", opener=lambda name, flags: os.open(name, flags | flag, 0o666)) as file:
            file.write(text.encode())
            if durable:
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(f"Cannot write {path}: {error.strerror}.") from error
