"""Fetching a file: checked by its checksum, whole or not there, going on where it was cut off."""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from lasem.errors import DataError

_CHUNK = 1 << 18
_SECONDS = 30  # without a byte, until a connection counts as dead


@final
@dataclass(frozen=True, kw_only=True)
class Download:
    """One file of the network."""

    url: str
    checksum: str
    """``md5:...`` or ``sha256:...``"""
    unpack: bool = False
    """Whether it is an archive, whose files are wanted."""

    @property
    def name(self) -> str:
        """What the file is called on disk."""
        return self.url.rpartition("/")[2]


def fetch(download: Download, folder: Path, *, otherwise: str) -> None:
    """Fetch a file into a folder and unpack it; one that is there with the right checksum is not fetched again.

    Args:
        download: what.
        folder: where; made if it is not there.
        otherwise: what a person can do instead, for the message of an error.

    Raises:
        DataError: if pooch is not installed, the network does not give the file, or it is another one.
    """
    try:
        import pooch
    except (ImportError, RuntimeError) as error:
        raise DataError(f"Fetching {download.name} needs pooch: pip install 'lasem[download]'. {otherwise}") from error
    pooch.get_logger().setLevel("ERROR")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pooch.retrieve(
            download.url, known_hash=download.checksum, fname=download.name, path=folder, downloader=_resumed
        )
        if download.unpack:
            _unpack(folder / download.name, folder)
    except Exception as error:  # of the network, of the checksum, of the disk, of a damaged archive
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"Cannot fetch {download.url}: {reason}. {otherwise}") from error


def _resumed(url: str, output_file: str, pooch: Any, check_only: bool = False) -> None:
    """Download for pooch, which checks and moves the file; what a broken connection left is kept beside it."""
    import requests

    part = Path(output_file).parent / f".{url.rpartition('/')[2]}.part"
    there = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={there}-"} if there else {}
    with requests.get(url, headers=headers, stream=True, timeout=_SECONDS) as answer:
        if answer.status_code == 416:  # nothing is left to send: the part is the whole, or of another file
            os.replace(part, output_file)
            return
        answer.raise_for_status()
        if answer.status_code != 206:
            there = 0  # the server sends it from the beginning
        left = answer.headers.get("Content-Length")
        total = there + int(left) if left is not None else None
        with part.open("ab" if there else "wb") as file, _bar(part.name[1:-5], total, there) as advance:
            for chunk in answer.iter_content(_CHUNK):
                file.write(chunk)
                advance(len(chunk))
    if total is not None and part.stat().st_size < total:
        raise OSError(f"the connection broke after {part.stat().st_size} of {total} bytes; the next try goes on there")
    os.replace(part, output_file)


class _bar:  # noqa: N801 (used like a function)
    """A progress bar in a terminal, nothing elsewhere."""

    def __init__(self, name: str, total: int | None, done: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self._shown = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())
        self._task = self._shown.add_task(name, total=total, completed=done)

    def __enter__(self) -> Any:
        self._shown.__enter__()
        return lambda step: self._shown.advance(self._task, step)

    def __exit__(self, *of_error: Any) -> None:
        self._shown.__exit__(*of_error)


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack beside, then move: what has its name is whole."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacked-") as beside:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(beside)
        else:
            with tarfile.open(archive) as packed_tar:
                packed_tar.extractall(beside, filter="data")  # nothing outside the folder
        for entry in sorted(Path(beside).iterdir()):
            target = folder / entry.name
            if target.is_dir():
                shutil.rmtree(target)
            os.replace(entry, target)
