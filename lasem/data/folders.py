"""Image folders, lists of image files and archives of them: which files are images, their classes and their splits."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import re
import shutil
import stat
import tarfile
import tempfile
import weakref
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Any, ClassVar, Final, final

import numpy as np
import torch

from lasem.data.decode import image_size, suffixes
from lasem.data.images import AbstractImages, FileImages
from lasem.data.labelled import Labelled, and_left_out, as_label, check_spellings, counted
from lasem.data.readers import SPLIT_NAMES, FileReader, existing_path, split_of
from lasem.data.split import Part
from lasem.errors import DataError, nearest
from lasem.files import read_text
from lasem.settings import Range

LISTS: Final = ("metadata.csv", "metadata.jsonl", "labels.csv")
"""Files in a folder that may name the class of each image there, as on the Hugging Face Hub."""
LIST_SUFFIXES: Final = (".csv", ".tsv", ".jsonl")
ARCHIVE_SUFFIXES: Final = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
FILE_SUFFIXES: Final = LIST_SUFFIXES + ARCHIVE_SUFFIXES
"""Endings of files that FolderReader reads."""
BROKEN: Final = ("dangling link", "pipe or device")
"""Why a file is left out that a person may have taken for an image."""

Row = tuple[str, str, str]
"""A file's name, class and split in a list."""

Found = tuple[Part, str, Path, str]
"""A file's split, class and path, and why it is left out; nothing if it is not."""

Spoken = tuple[Part, tuple[str, ...]]
"""The split and the other words of a name."""

Columns = tuple[Sequence[str], Sequence[str]]
"""What columns of files and of classes may be called; the first is what a person asked for."""

_FILE_COLUMNS = ("file_name", "file", "filename", "image", "path", "image_path")
_CLASS_COLUMNS = ("label", "class", "class_name", "category")
_SYSTEM = ("__macosx", "thumbs.db", "desktop.ini", "@eadir")  # what systems put next to images
_SLACK_BYTES, _MAX_EXPANSION = 2**28, 100
_TOO_LARGE = "its bytes hold more than there is room for"


@final
@dataclass(frozen=True, kw_only=True)
class FolderReader(FileReader):
    """Cuts folders of images into tasks; each folder of images is a class, its name the class's."""

    name: ClassVar[str] = "folder"

    path: str
    """Folder that holds one folder for each class; or ``train`` and, if there are, ``valid`` and ``test``, and the
    classes' folders in these. Images may also be in folders below their class's. A list may take the place of classes'
    folders: ``metadata.csv``, ``metadata.jsonl`` or ``labels.csv`` with columns file_name and label. Or such a list
    itself, or a zip or tar file of such a folder."""
    image_column: str = "file_name"
    """Column of a list that names the images' files."""
    label_column: str = "label"
    """Column of a list that names their classes."""
    memory_limit_mb: Annotated[int, Range(least=0)] = 1024
    """The images used wait in memory if they need at most so many megabytes. Above, they are decoded whenever they are
    needed, and all of a task's are once looked at when it begins. The numbers are the same either way."""

    def find(self) -> Labelled:
        place, keep = existing_path(self.path), None
        found: list[Found] = []
        columns = _columns(self.image_column, _FILE_COLUMNS), _columns(self.label_column, _CLASS_COLUMNS)
        try:
            if place.name.lower().endswith(ARCHIVE_SUFFIXES) and place.is_file():
                keep = _Unpacked(place)
                place = _inner(keep.folder)
                found += [(Part.TRAIN, "", place, "link in an archive")] * keep.num_left_out
            if place.is_dir():
                found += _in_folder(place, columns)
            elif place.suffix.lower() in LIST_SUFFIXES:
                found += _in_list(place, _rows(place, columns), Part.TRAIN, anywhere=True)
            else:
                raise DataError(
                    f"Expected a folder of images, a list of images and labels ({', '.join(LIST_SUFFIXES)}) or an "
                    f"archive ({', '.join(ARCHIVE_SUFFIXES)}) at {place}, but it is another file."
                )
        except OSError as error:
            raise DataError(f"Expected images in {place} that can be read; {error}.") from error
        except DataError as error:
            if keep is None:
                raise
            said = str(error).replace(str(keep.folder), self.path)
            raise DataError(f"{said} What is in an archive can be changed, or given alone, once unpacked.") from error
        files = sorted((part, name, path) for part, name, path, why in found if not why)
        left_out = tuple((part, why) for part, _, _, why in found if why)
        if not files:
            raise DataError(
                f"Expected labelled images in {self.path}; there are none{and_left_out(counted(left_out))}."
            )
        class_names = sorted({name for _, name, _ in files})
        number_of = {name: number for number, name in enumerate(class_names)}
        labels = torch.tensor([number_of[name] for _, name, _ in files])
        parts = torch.tensor([part for part, _, _ in files])

        def name_of(position: int) -> str:
            file = files[position][2]
            return str(file if keep is None else Path(self.path) / file.relative_to(keep.folder))

        def take(used: torch.Tensor) -> AbstractImages:
            paths = [files[k][2] for k in used.tolist()]
            names = None if keep is None else [name_of(k) for k in used.tolist()]
            images = FileImages(paths, channels=self.channels, size=self.resize, keep=keep, names=names)
            fits = len(images) * int(np.prod(images.shape)) <= self.memory_limit_mb * 2**20
            return images.in_memory() if fits else images

        return Labelled(labels, parts, class_names, take, self.path, left_out, name_of=name_of)


@final
class _Unpacked:
    """A temporary folder with the files of an archive, removed with the last reader of them."""

    def __init__(self, archive: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lasem-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.num_left_out = unpack(archive, self.folder)


def files_below(folder: Path, unreadable: Callable[[Path, OSError], None] | None = None) -> Iterator[tuple[Path, str]]:
    """Iterate over the files in a folder and in those below it, linked ones as well, each with why it is no image.

    What begins with a dot is passed over: images are counted, but for those in folders, as of thumbnails.
    ``unreadable`` is called with a folder that cannot be read, and the others go on; without it OSError is raised.
    """
    seen, waiting = set(), [folder]
    while waiting:
        here = waiting.pop()
        try:
            status = here.stat()
            if (status.st_dev, status.st_ino) in seen:
                yield here, "link to a folder that is there already"
                continue
            seen.add((status.st_dev, status.st_ino))
            folders, files, hidden = _scanned(here)
            found = [(path, _why_not(path)) for path in files]
            images = (path for path in hidden if path.suffix.lower() in suffixes())
            found += [(path, "hidden") for path in images if path.is_file() and _is_image(path)]
        except OSError as error:
            if unreadable is None:
                raise
            unreadable(here, error)
            continue
        waiting += reversed(folders)
        yield from found


def _why_not(path: Path) -> str:
    """Return why a path is no image; nothing if it is one."""
    if not path.is_file():
        return BROKEN[1] if path.exists() else BROKEN[0]
    image = path.suffix.lower() in suffixes() or _is_image(path)
    return "" if image else f"of type {path.suffix.lower() or 'unknown'}"


def unpack(archive: Path, folder: Path) -> int:
    """Unpack the files of a zip or tar file into a folder; return how many links and devices were left out.

    DataError if it is damaged, names a place outside the folder, or holds more than its size can explain.
    """
    size, num_left_out = archive.stat().st_size, 0
    room = min(_SLACK_BYTES + _MAX_EXPANSION * size, shutil.disk_usage(folder).free)
    try:
        for name, num_bytes, file in _members(archive, room):
            if file is None:
                num_left_out += 1
                continue
            room -= num_bytes + 512
            if room < 0:
                raise ValueError(_TOO_LARGE)
            if not _stays_inside(name):
                raise ValueError(f"it holds {name!r}, a place outside of it")
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with file, target.open("wb") as unpacked:
                shutil.copyfileobj(file, unpacked)
    except Exception as error:  # damaged files reach many parsers, each of which raises its own kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"Expected an archive that can be unpacked at {archive}; {reason}. Get it again, or unpack it yourself."
        ) from error
    return num_left_out


@dataclass
class _Bounded:
    """A stream of at most so many bytes, for tarfile keeps what a header says of a name in memory."""

    stream: IO[bytes]
    left: int

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise ValueError(_TOO_LARGE)
        return data


def _members(archive: Path, room: int) -> Iterator[tuple[str, int, IO[bytes] | None]]:
    """Open one regular file of an archive after the other, with its name and size; others than folders are None."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for entry in packed.infolist():
                if not entry.is_dir():
                    link = stat.S_ISLNK(entry.external_attr >> 16)
                    name = entry.filename.replace("\\", "/")  # as some programs of Windows write them
                    yield name, entry.file_size, None if link else packed.open(entry)
    else:
        with archive.open("rb") as opened:
            begins = opened.read(6)
        packers = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
        opener: Any = next((packer for magic, packer in packers.items() if begins.startswith(magic)), open)
        with opener(archive, "rb") as stream:
            bounded: Any = _Bounded(stream, room)
            with tarfile.open(fileobj=bounded, mode="r|") as packed_tar:
                for member in packed_tar:
                    if not member.isdir():
                        yield member.name, member.size, packed_tar.extractfile(member) if member.isreg() else None


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and ":" not in path.parts[0]


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Folders and other entries in a folder, by name, without hidden ones and what systems put there."""
    return _scanned(folder)[:2]


def _scanned(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """The same, and hidden entries."""
    folders: list[Path] = []
    others: list[Path] = []
    hidden: list[Path] = []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name[0] == ".":
                hidden.append(Path(entry.path))
            elif entry.name.lower() not in _SYSTEM:
                is_folder = os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()
                (folders if is_folder else others).append(Path(entry.path))
    return folders, others, hidden


def _is_image(path: Path) -> bool:
    try:
        image_size(path, "")
    except DataError:
        return False
    return True


def _images_in(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if not _why_not(path)]


def _strays(paths: Iterable[Path], part: Part, where: str) -> Iterator[Found]:
    """Find images, and links that lead nowhere, in a folder that should hold folders."""
    for path in paths:
        why = _why_not(path)
        if not why or why in BROKEN:
            yield part, "", path, why or f"in no folder of a {where}"


def _inner(place: Path) -> Path:
    """Return the first folder that holds more than one folder: where there is but one folder, that is looked into."""
    folders, files = _entries(place)
    while len(folders) == 1 and not _images_in(files) and not any(file.name.lower() in LISTS for file in files):
        place = folders[0]
        folders, files = _entries(place)
    return place


def _in_folder(place: Path, columns: Columns) -> Iterator[Found]:
    """Find the files in a folder of classes, or of splits with classes."""
    folders, files = _entries(place)
    splits = {} if _list_in(place, columns) else _splits(place, folders)
    if not splits:
        yield from _in_classes(place, Part.TRAIN, columns)
        return
    of_splits = ", ".join(folder.name for folder in splits.values())
    for folder in folders:
        if folder not in splits.values():
            if len(splits) == 1 or _entries(_unwrapped(folder))[0]:
                raise DataError(
                    f"Expected only folders of splits (train, valid, test) in {place}, as {of_splits} "
                    f"{'is one' if len(splits) == 1 else 'are'}; got '{folder.name}' as well."
                    f"{nearest(folder.name, SPLIT_NAMES)}"
                )
            files += [path for path, why in files_below(folder) if not why]
    yield from _strays(files, Part.TRAIN, "split")
    if Part.TRAIN not in splits:
        raise DataError(f"Expected a folder 'train' next to '{of_splits}' in {place}, but there is none.")
    trained = set()
    for part, folder in sorted(splits.items()):
        for found in _in_classes(_unwrapped(folder), part, columns):
            if part == Part.TRAIN and not found[3]:
                trained.add(found[1])
            elif not found[3] and found[1] not in trained:
                raise DataError(
                    f"Expected only classes that have training images (in {splits[Part.TRAIN]}); got "
                    f"{folder / found[1]}.{nearest(found[1], trained)}"
                )
            yield found


def _splits(place: Path, folders: list[Path]) -> dict[Part, Path]:
    """Find folders of splits, which are known by their names together: a class may be called "bullet_train" too."""
    named = {folder: split for folder in folders if (split := split_of(folder.name))}
    found = set(named.values())
    several = _several(found)
    above = any(not others and _entries(folder)[0] for folder, (_, others) in named.items())
    splits: dict[Part, Path] = {}
    for folder, (part, _) in named.items() if several or above or len(folders) == 1 else ():
        if part in splits:
            raise DataError(
                f"Expected one folder for each split in {place}; got {splits[part].name} and {folder.name}."
            )
        splits[part] = folder
    return splits


def _several(found: Iterable[Spoken]) -> bool:
    """Whether names speak of several splits of one thing."""
    return any(a != b and (kind == other or not kind) for a, kind in found for b, other in found)


def _unwrapped(folder: Path) -> Path:
    """Return the folder ``seg_train`` in a folder ``seg_train`` that holds no other."""
    while len(inner := _entries(folder)[0]) == 1 and _alike(inner[0].name, folder.name):
        folder = inner[0]
    return folder


def _alike(name: str, other: str) -> bool:
    return name.lower() == other.lower() or (split_of(name) is not None and split_of(name) == split_of(other))


def _in_classes(place: Path, part: Part, columns: Columns) -> Iterator[Found]:
    """Find the files in a folder that holds a folder for each class, or a list."""
    folders, files = _entries(place)
    listed = _list_in(place, columns)
    if listed is not None:
        yield from _in_list(*listed, part)
        return
    if not folders:
        images = _images_in(files)
        raise DataError(
            f"Expected a folder for each class in {place}, but it holds no folder"
            f"{f', only images of no class such as {images[0].name}' if images else ''}. Put images into CLASS/*.png, "
            f"or list their classes in {place / LISTS[0]}, with columns file_name and label."
        )
    yield from _strays(files, part, "class")
    inner = _inner(place)
    if inner != place and part == Part.TRAIN and (below := _entries(inner)[0]):
        raise DataError(
            f"Expected a folder for each class in {place}; it holds one folder, and the classes seem to be below, in "
            f"{inner} ({', '.join(folder.name for folder in below[:3])}{', ...' if len(below) > 3 else ''}). Give that "
            f"folder, or move what is in it up."
        )
    if part == Part.TRAIN:  # the others' classes are known
        _check_no_groups(place, folders)
    for folder in folders:
        spoken = {below: split for below in _entries(folder)[0] if (split := split_of(below.name))}
        wrong = [below for below, (_, others) in spoken.items() if not others or _several(set(spoken.values()))]
        if wrong:
            raise DataError(
                f"Expected the images of class '{folder.name}' in {folder}; got a folder of a split there, "
                f"'{wrong[0].name}'. Put splits above the classes: {wrong[0].name}/{folder.name}/*.png."
            )
        found = [(part, folder.name, *file) for file in files_below(folder)]
        if all(why for *_, why in found):
            left_out = and_left_out(counted((part, why) for *_, why in found))
            raise DataError(
                f"Class '{folder.name}' has too few images: expected at least one image file (.png, .jpg, ...) in "
                f"{folder} or below; there are 0{left_out}. Add images, or remove the folder."
            )
        yield from found


def _check_no_groups(place: Path, folders: Sequence[Path]) -> None:
    """Raise DataError for groups of images, each with the same classes: fold1/mug, fold2/mug, or amazon/mug, dslr/mug.

    They hold no image themselves, and there are no more of them than of the names below, nine tenths of which are in
    each on average: fewer names are kinds of images of a class, such as CLASS/images. Or they differ in a number alone.
    """
    inner: list[set[str]] = []
    grouped = len(folders) > 1
    for folder in folders:
        below, files = _entries(folder)
        inner.append({group.name for group in below})
        grouped = grouped and bool(below) and not any(map(split_of, inner[-1])) and not _images_in(files)
        if not grouped and len(inner) > 1:
            break
    names = set.union(*inner)
    grouped = grouped and len(folders) <= len(names) and sum(map(len, inner)) >= 0.9 * len(folders) * len(names)
    numbered = len({re.sub(r"\d+", "", folder.name) for folder in folders}) == 1
    if grouped or (numbered and len(inner) > 1 and len(inner[0]) > 1 and inner[0] == inner[1]):
        first, second = (folder.name for folder in folders[:2])
        shown = ", ".join(sorted(inner[0])[:3])
        raise DataError(
            f"Expected a folder for each class in {place}; {first} and {second} seem to be groups of images, as each "
            f"holds the same folders ({shown}{', ...' if len(inner[0]) > 3 else ''}). If these are the classes, give "
            f"one group, such as {place / first}, or put the groups' images together: CLASS/*.png. If {first} is a "
            f"class, list all images in {place / LISTS[0]}, with columns file_name and label."
        )


def _columns(asked: str, known: Sequence[str]) -> Sequence[str]:
    """What a column may be called: as was asked for, or if that is usual, as is usual."""
    return (asked, *known) if asked in known else (asked,)


def _list_in(place: Path, columns: Columns) -> tuple[Path, list[Row]] | None:
    """Find a list in a folder that has a class for each file: one of ``LISTS``, or the only list next to images."""
    folders, files = _entries(place)
    lists = [file for file in files if file.suffix.lower() in LIST_SUFFIXES]
    known = [file for name in LISTS for file in lists if file.name.lower() == name]
    for file in known or (lists if len(lists) == 1 and not folders else []):
        try:
            return file, _rows(file, columns)
        except _NoColumnError:
            if not folders:
                raise
            # of captions, boxes or the like
    return None


class _NoColumnError(DataError):
    """A list has no column of files, or none of classes."""


def read_list(file: Path, what: str = "images", *, strict: bool = False) -> list[dict[str, Any]]:
    """Return a list's rows by column, if ``strict`` with a cell for each column; DataError if it cannot be read."""
    rows: list[dict[str, Any]] = []
    try:
        with io.StringIO(read_text(file).removeprefix("\ufeff"), newline="") as opened:
            if file.suffix.lower() == ".jsonl":
                rows += (json.loads(line) for line in opened if line.strip())
                if not all(isinstance(row, dict) for row in rows):
                    raise ValueError("a line is no object")
                return rows
            head = opened.readline()
            opened.seek(0)
            table = csv.DictReader(opened, delimiter=max(",;\t", key=head.count), strict=strict)
            names = [name for name in table.fieldnames or () if name]
            if len(set(names)) < len(names):
                raise ValueError(f"a column's name comes twice: {', '.join(names)}")
            for row in table:
                if strict and (None in row or None in row.values()):
                    raise ValueError("it has not as many cells as the first line; quote a text with commas or lines")
                rows.append(row)
            return rows
    except (OSError, ValueError, TypeError, csv.Error, RecursionError) as error:
        where = f" (row {len(rows) + 1})" if strict else ""
        raise DataError(
            f"Expected a list of {what} and labels in {file}; it cannot be read: {error}{where}."
        ) from error


def _rows(file: Path, columns: Columns) -> list[Row]:
    """Read a list: file, class and split of each row, which may be empty."""
    rows = read_list(file)
    there = list(dict.fromkeys(name for row in rows for name in row if name))
    called = {name.strip().lower(): name for name in there} | {name: name for name in there}
    ways = ([called[way] for name in names for way in (name, name.lower()) if way in called] for names in columns)
    found = [way[0] for way in ways if way]
    if len(found) < 2:
        raise _NoColumnError(
            f"Expected columns {columns[0][0]} and {columns[1][0]} in {file}; its columns are "
            f"{', '.join(map(str, there)) or 'none'}. Set image_column and label_column (--image-column, "
            f"--label-column)."
        )

    def text(row: dict[str, Any], name: str) -> str:
        return "" if row.get(name) is None else str(row[name]).strip()

    wrong = next((row[found[1]] for row in rows if isinstance(row.get(found[1]), list | dict)), None)
    if wrong is not None:
        raise DataError(f"Expected text or a number in column '{found[1]}' of {file}, a class; got {wrong!r}.")
    values = [as_label(row.get(found[1])) for row in rows]
    labels = ["" if value is None else str(value) for value in values]
    check_spellings(filter(None, labels), f"column '{found[1]}' of {file}")
    return [(text(row, found[0]), label, text(row, "split")) for row, label in zip(rows, labels, strict=True)]


def _in_list(file: Path, rows: Sequence[Row], part: Part, *, anywhere: bool = False) -> Iterator[Found]:
    """Find the files that a list names, and in its folder those that it does not name."""
    listed: dict[Path, tuple[Part, str]] = {}
    for name, class_name, split in rows:
        if not name or not (anywhere or _stays_inside(name)):
            raise DataError(f"Expected files in the folder of {file}; got {name!r}. Name them from that folder on.")
        path = file.parent / name
        first = PurePosixPath(name).parts[0]
        spoken = split_of(split or (first if first != name else ""))
        if split and spoken is None:
            raise DataError(f"Expected train, valid or test in column split of {file}; got {split!r}.")
        why = "" if class_name else "without a label"
        if not os.path.isfile(path):
            why = "in the list but not there"
        found = spoken[0] if spoken and (split or not spoken[1]) else part, class_name
        if path in listed:
            why = why or "twice in the list"
        if listed.setdefault(path, found) != found:
            raise DataError(f"Expected one class and one split for each file in {file}; {name} has several.")
        yield *found, path, why
    for path, why in () if anywhere else files_below(file.parent):
        if not why and path not in listed:
            yield part, "", path, f"not in {file.name}"
