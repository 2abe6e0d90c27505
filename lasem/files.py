"""Files that are whole or absent: written next to their place, then renamed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from lasem.errors import StorageError


def write_file(path: Path, content: bytes | str, *, durable: bool = True) -> None:
    """Replace a file in one step.

    Args:
        path: its place; its folder is made if it does not exist.
        content: text is written as UTF-8.
        durable: wait until the disk has it, so that even a power cut leaves the old file or the new one.

    Raises:
        StorageError: if it cannot be written; the old file stays.
    """
    data = content.encode() if isinstance(content, str) else content
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    consequence = "What was there before is untouched."
    try:
        make_folder(path.parent, durable=durable)
        try:
            with beside.open("wb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(beside, path)
            consequence = "It is there, but a power cut may take it back."
        finally:
            beside.unlink(missing_ok=True)
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


def append(path: Path, text: str, *, durable: bool = False) -> None:
    """Add text to a file in one write; the file and its folder are made if they do not exist.

    Args:
        path: the file.
        text: written as UTF-8; a process that is killed may leave a part of it, so let it end with a line break.
        durable: wait until the disk has it, as in ``write_file``.

    Raises:
        StorageError: if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(text.encode())
            if durable:
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(f"Cannot write {path}: {error.strerror}.") from error
