"""Files of benchmarks: found in a folder, or fetched into it."""

import os
import shutil
import sys
import tempfile
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

from filelock import FileLock

from lasem.data.folders import unpack
from lasem.data.task import AbstractReader, TaskStream
from lasem.errors import DataError
from lasem.settings import Settings

_CHUNK = 1 << 18
_SECONDS = 30  # without a byte, until a connection counts as dead


@final
@dataclass(frozen=True)
class Download:
    """A file of the network; an archive is unpacked."""

    url: str
    checksum: str
    """``md5:...`` or ``sha256:...``, as the data set's own page or several libraries name it."""

    @property
    def name(self) -> str:
        """The name of the file on disk."""
        return self.url.rpartition("/")[2]

    @property
    def is_archive(self) -> bool:
        """Whether the files in it are needed, not the file itself."""
        return self.name.endswith((".zip", ".tar.gz"))


@final
@dataclass(frozen=True, kw_only=True)
class Layout:
    """The files of a data set."""

    title: str
    """The name of the data set."""
    page: str
    """Where a person gets it."""
    files: tuple[str, ...]
    """Files or folders that must be there, as patterns; ``|`` separates those of which one is enough."""
    folders: tuple[str, ...] = ()
    """Folders, inside the one that a person names, in which the files may be."""
    downloads: tuple[Download, ...] = ()
    """The files that can be fetched."""

    @classmethod
    def of_hub(cls, title: str, repository: str, revision: str, folder: str, train: str, test: str) -> "Layout":
        """Describe two parquet files of the Hugging Face Hub, whose SHA-256 are the last two arguments."""
        page = f"https://huggingface.co/datasets/{repository}"
        url = f"{page}/resolve/{revision}/{folder}"
        return cls(
            title=f"{title} in parquet",
            page=f"{page} (folder {folder})",
            files=("*.parquet|data/*.parquet",),
            folders=(folder,),
            downloads=tuple(
                Download(f"{url}/{part}-00000-of-00001.parquet", f"sha256:{checksum}")
                for part, checksum in (("train", train), ("test", test))
            ),
        )


@dataclass(frozen=True, kw_only=True)
class BenchmarkReader(Settings, AbstractReader):
    """Settings that every benchmark's reader inherits."""

    layout: ClassVar[Layout]

    path: str | None = None
    """Folder with the data set's files as they are published; none: a folder of the stream's name in
    ``~/.cache/lasem``."""
    download: bool = False
    """Fetch what is missing there; needs a network and ``pip install 'lasem[download]'``."""

    @abstractmethod
    def read(self, folder: Path, seed: int) -> TaskStream:
        """Open the stream in the folder that holds the files; see ``open``."""

    def open(self, seed: int) -> TaskStream:
        """Find or fetch the files, and read them; see AbstractReader."""
        return self.read(self.find(), seed)

    def find(self) -> Path:
        """Return the folder of all files, fetched and unpacked if need be; DataError says which to put where."""
        place = Path(self.path or Path.home() / ".cache" / "lasem" / self.name).expanduser()
        layout = self.layout
        folders = [place, *(place / inner for inner in layout.folders)]
        archives = [folder / d.name for folder in folders for d in layout.downloads if d.is_archive]
        found = self._complete(folders)
        if found is None and self.download and not layout.downloads:
            raise DataError(f"{layout.title} cannot be fetched by a program. {self._by_hand(place)}")
        if found is None and self.download:
            for download in layout.downloads:
                fetch(download, place, otherwise=self._by_hand(place))
        if found is None and any(archive.exists() for archive in archives):
            with FileLock(place / ".unpacking.lock"):  # seeds that run at the same time
                found = self._complete(folders)
                for archive in archives if found is None else ():
                    if archive.exists():
                        _unpack(archive, archive.parent)
        found = found or self._complete(folders)
        if found is None:
            way = " Set download to fetch it." if layout.downloads and not self.download else ""
            missing = [names for names in layout.files if not choose(place, names).exists()]
            there = sorted(entry.name for entry in place.iterdir() if entry.name[0] != ".") if place.is_dir() else []
            came = f"there is no {_in_words(missing)}" if place.is_dir() else "there is no such folder"
            came += f", but {', '.join(there[:3])}{', ...' if len(there) > 3 else ''}" if there else ""
            raise DataError(f"Expected the files of {layout.title} in {place}; {came}. {self._by_hand(place)}{way}")
        return found

    def _complete(self, folders: list[Path]) -> Path | None:
        return next((f for f in folders if all(choose(f, names).exists() for names in self.layout.files)), None)

    def _by_hand(self, place: Path) -> str:
        inner = [str(place / folder) for folder in self.layout.folders]
        put = f"put {_in_words(self.layout.files)} into {place}{f' (or {_in_words(inner)})' if inner else ''}"
        return f"Get it from {self.layout.page} and {put}."


def choose(folder: Path, names: str) -> Path:
    """Return what is there of some names or patterns, separated by ``|``; if nothing is, the last name."""
    choices = [*names.split("|")]
    return next((place for name in choices for place in sorted(folder.glob(name))), folder / choices[-1])


def fetch(download: Download, folder: Path, *, otherwise: str) -> None:
    """Fetch a file into a folder and unpack it; one that is there with the right checksum is not fetched again.

    DataError, which ends in ``otherwise``, if pooch is not installed or the network does not return that file.
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
    except Exception as error:  # of the network, of the checksum, of the disk
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"Cannot fetch {download.url}: {reason}. {otherwise}") from error
    if download.is_archive:
        _unpack(folder / download.name, folder)


def _resumed(url: str, output_file: str, pooch: Any, check_only: bool = False) -> None:
    """Download for pooch, which checks and moves the file; what a broken connection left is kept next to it."""
    import requests
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    name = url.rpartition("/")[2]
    part = Path(output_file).parent / f".{name}.part"
    there = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={there}-"} if there else {}
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())
    with requests.get(url, headers=headers, stream=True, timeout=_SECONDS) as answer, progress:
        if answer.status_code == 416:  # nothing is left to send: the part is the whole, or of another file
            os.replace(part, output_file)
            return
        answer.raise_for_status()
        if answer.status_code != 206:
            there = 0  # the server sends it from the beginning
        left = answer.headers.get("Content-Length")
        total = there + int(left) if left is not None else None
        bar = progress.add_task(name, total=total, completed=there)
        with part.open("ab" if there else "wb") as file:
            for chunk in answer.iter_content(_CHUNK):
                file.write(chunk)
                progress.advance(bar, len(chunk))
    if total is not None and part.stat().st_size < total:
        raise OSError(f"the connection broke after {part.stat().st_size} of {total} bytes; the next try goes on there")
    os.replace(part, output_file)


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack into a folder of its own, then move: what has its name is whole."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacked-") as unpacked:
        unpack(archive, Path(unpacked))
        for entry in sorted(Path(unpacked).iterdir()):
            target = folder / entry.name
            if target.is_dir():
                shutil.rmtree(target)
            os.replace(entry, target)


def _in_words(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(name.replace("|", " or ") for name in names)
