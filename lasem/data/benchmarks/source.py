"""Where a benchmark's files come from: a folder, a download, or a stand-in that is made on the fly."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lasem.data.benchmarks.download import Download, fetch
from lasem.data.benchmarks.parquet_files import has_parquet
from lasem.data.stream import TaskStream
from lasem.errors import ConfigError, DataError


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings:
    """Settings that every benchmark's reader inherits."""

    path: str | None = None
    """Folder with the data set's files as they are published; none: a folder of the stream's name in
    ``~/.cache/lasem``."""
    download: bool = False
    """Fetch what is missing there; needs a network and ``pip install 'lasem[download]'``."""
    stand_in: bool = False
    """Made-up images in files of the same layout, to try things out; numbers on them say nothing of the data set."""

    def __post_init__(self) -> None:
        if self.stand_in and (self.path is not None or self.download):
            raise ConfigError(
                f"{type(self).__name__}.stand_in makes up its images; expected neither path nor download beside it."
            )


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The files of a data set."""

    title: str
    """What people call it."""
    files: tuple[str, ...]
    """Files or folders that must be there; ``|`` stands between names of which one is enough."""
    folders: tuple[str, ...] = ()
    """Folders, inside the one that a person names, in which the files may be."""
    parquet: str = ""
    """Folder, inside the one that a person names, of the Hugging Face Hub's parquet files, if these will do as well."""
    downloads: tuple[Download, ...] = ()
    """What can be fetched; checksums are the ones that the data set's own page or several libraries name."""
    page: str = ""
    """Where a person gets what cannot be fetched."""


def open_benchmark(
    settings: BenchmarkSettings,
    name: str,
    layout: Layout,
    *,
    read: Callable[[Path], TaskStream],
    write_stand_in: Callable[[Path], None],
) -> TaskStream:
    """Find, fetch or make the files, and read them.

    Args:
        settings: where to look.
        name: of the stream.
        layout: the files.
        read: opens the stream in the folder that holds the files.
        write_stand_in: writes made-up files into an empty folder.

    Raises:
        DataError: if the files are not there; the message says which to put where.
    """
    if settings.stand_in:
        with tempfile.TemporaryDirectory(prefix="lasem-") as folder:
            write_stand_in(Path(folder))
            return TaskStream.of(tuple(read(Path(folder))), name=name)  # before the files go
    return read(find(settings, name, layout))


def find(settings: BenchmarkSettings, name: str, layout: Layout) -> Path:
    """The folder that holds all files of a layout, fetched if that was asked for.

    Raises:
        DataError: if there is none.
    """
    place = Path(settings.path).expanduser() if settings.path is not None else Path.home() / ".cache" / "lasem" / name
    found = _complete(place, layout)
    if found is None and settings.download:
        if not layout.downloads:
            raise DataError(f"{layout.title} cannot be fetched by a program. {_by_hand(place, layout)}")
        for download in layout.downloads:
            fetch(download, place, otherwise=_by_hand(place, layout))
        found = _complete(place, layout)
    if found is None:
        ways = [_by_hand(place, layout)]
        if layout.downloads and not settings.download:
            ways.append("Set download to fetch it.")
        raise DataError(
            f"Expected the files of {layout.title} in {place}; {_missing(place, layout)}. {' '.join(ways)} To try "
            f"things out without it, set stand_in."
        )
    return found


def choose(folder: Path, names: str) -> Path:
    """The first of some names, parted by ``|``, that is there; the last one if none is."""
    *others, last = (folder / name for name in names.split("|"))
    return next((place for place in others if place.exists()), last)


def _complete(place: Path, layout: Layout) -> Path | None:
    if layout.parquet:
        for folder in (place, place / layout.parquet):
            if has_parquet(folder):
                return folder
    folders = [place, *(place / inner for inner in layout.folders)]
    return next((f for f in folders if all(choose(f, names).exists() for names in layout.files)), None)


def _missing(place: Path, layout: Layout) -> str:
    if not place.exists():
        return "there is no such folder"
    there = [names for names in layout.files if not choose(place, names).exists()]
    return f"there is no {_in_words(there)}"


def _in_words(names: Sequence[str]) -> str:
    return ", ".join(name.replace("|", " or ") for name in names)


def _by_hand(place: Path, layout: Layout) -> str:
    inner = f" (or {_in_words([str(place / f) for f in layout.folders])})" if layout.folders else ""
    put = f"put {_in_words(layout.files)} into {place}{inner}"
    if layout.parquet:
        put += ", or the Hugging Face Hub's parquet files"
    if not layout.downloads:
        return f"Get it from {layout.page}, unpack it, and {put}."
    sources = ", ".join(f"{d.url} ({d.checksum})" for d in layout.downloads)
    unpack = ", unpack" if any(d.unpack for d in layout.downloads) else ""
    return f"Get {sources}{unpack}, and {put}."
