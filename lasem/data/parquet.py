"""Tables of images and labels: parquet files as on the Hugging Face Hub, and Arrow files as its library saves them."""

import json
import mmap
import os
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final, final

import numpy as np
import torch
from torch import Tensor

from lasem.data.decode import DamagedError, decode
from lasem.data.images import TensorImages
from lasem.data.labelled import Labelled, as_label, check_spellings
from lasem.data.readers import SPLIT_NAMES, FileReader, existing_path, split_of
from lasem.data.split import Part
from lasem.errors import DataError, nearest
from lasem.files import memory

TABLES: Final = (".parquet", ".arrow")
"""Endings of tables in binary formats."""
_SHARD = re.compile(r"(?P<before>.*?)(?P<number>\d+)(?:[-_.]of[-_.](?P<total>\d+)(?:-[0-9a-f]{8,})?)?")
"""Pieces of a table: train-00000-of-00002, part_0, 0001."""
_SET_COLUMNS = "Set image_column and label_column (lasem learn and evaluate: --image-column, --label-column)."
_SLACK_ROWS, _SLACK_BYTES, _MAX_EXPANSION = 10**4, 2**26, 100
_SLACK_PIXELS, _MAX_PIXELS = 2**30, 3000  # bytes; and times a file's size, for an image of one colour is small


@final
@dataclass(frozen=True)
class Column:
    """The values of a column, each once."""

    places: np.ndarray[Any, Any]
    """Of each row, the place of its value in ``values``."""
    values: list[Any]
    names: list[str] | None = None
    """Of classes, if the values are their numbers."""


@final
@dataclass(frozen=True, kw_only=True)
class ParquetReader(FileReader):
    """Cuts parquet or Arrow files into tasks. The images that tasks use wait decoded in memory.

    Cells of the image column hold an encoded image: its bytes, or a struct with a field ``bytes``. Labels are integers,
    named by the file's ClassLabel feature if it has one, or strings; rows without a label (none, -1 or -100) are left
    out. Needs pyarrow, the extra ``parquet``.
    """

    name: ClassVar[str] = "parquet"

    path: str
    """One file; or a folder with a file for each split (train, valid, test), each in one piece or in shards
    (``train-00000-of-00002.parquet``), in the folder itself, in a folder for each split, or in the only folder in it
    that holds such files (``data/``, ``default/train/``)."""
    image_column: str = "image"
    """Column of the images."""
    label_column: str = "label"
    """Column of the classes."""

    def find(self) -> Labelled:
        files = files_of_splits(existing_path(self.path))
        read = [self._read_labels(file) for file, _ in files]
        labels, class_names = merged_labels([file for file, _ in files], read, self.label_column)
        parts = torch.cat([torch.full((len(of_file),), part) for (_, part), of_file in zip(files, labels, strict=True)])
        rows = [(file, len(of_file)) for (file, _), of_file in zip(files, labels, strict=True)]
        numbers = torch.cat(labels)
        ends = torch.tensor([num_rows for _, num_rows in rows]).cumsum(0)

        def name_of(position: int) -> str:
            place = int(torch.searchsorted(ends, position, right=True))
            file, num_rows = rows[place]
            return f"{file}, row {position - int(ends[place]) + num_rows}"

        data = Labelled(numbers, parts, class_names, lambda used: self._decode(rows, used), self.path, name_of=name_of)
        if not bool((numbers >= 0).any()):
            raise DataError(
                f"Expected labels in column '{self.label_column}' of {self.path}; none of its {len(numbers)} rows has "
                f"one. {_SET_COLUMNS}"
            )
        left_out = tuple((Part(part), "without a label") for part in parts[numbers < 0].tolist())
        return replace(data.only(numbers >= 0), left_out=left_out)

    def _read_labels(self, file: Path) -> Column:
        """Read the labels of a table; DataError unless it has a column of encoded images, too."""
        import pyarrow.types as types

        with opened_table(file, (self.label_column,)) as table:
            check_column(table.schema, file, self.image_column, (), _SET_COLUMNS)
            kind = inner = table.schema.field(self.image_column).type
            if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
                inner = kind.field("bytes").type
            if not (types.is_binary(inner) or types.is_large_binary(inner)):
                raise DataError(
                    f"Expected encoded images in column '{self.image_column}' of {file}, as binary or a struct with "
                    f"binary 'bytes'; it is of type {kind}. {_SET_COLUMNS}"
                )
            check_column(table.schema, file, self.label_column, ("integers", "strings"), _SET_COLUMNS)
            return read_column(table, self.label_column)

    def _decode(self, files: Sequence[tuple[Path, int]], used: Tensor) -> TensorImages:
        images, first = torch.empty(0, dtype=torch.uint8), ""
        damaged: dict[int, tuple[str, str]] = {}
        place, before = -1, 0
        for file, num_rows in files:
            rows = used[(used >= before) & (used < before + num_rows)] - before
            for row, cell in _cells(file, self.image_column, rows.tolist()):
                place += 1
                where = f"{file}, row {row}, column '{self.image_column}'"
                if cell is None:
                    raise DataError(
                        f"Expected an encoded image in every row, but {where} holds none. Leave the row out."
                    )
                try:
                    image = decode(cell, where, channels=self.channels, size=self.resize)
                except DamagedError as error:
                    damaged[place] = error.reasons[0]
                if damaged:  # the others are only decoded to name all that are
                    continue
                if place == 0:
                    bytes_of_files = None if self.image_size else sum(file.stat().st_size for file, _ in files)
                    _check_memory(len(used) * image.numel(), bytes_of_files, file.parent)
                    images, first = torch.empty(len(used), *image.shape, dtype=torch.uint8), where
                if image.shape != images.shape[1:]:
                    raise DataError(
                        f"Expected all images to be as large as the one in {first}, {tuple(images.shape[2:])} (height, "
                        f"width); {where} is {tuple(image.shape[1:])}. Set image_size to resize all."
                    )
                images[place] = image
            before += num_rows
        if damaged:
            raise DamagedError(damaged)
        return TensorImages(images)


def holds_tables(folder: Path) -> bool:
    """Return whether a folder holds parquet or Arrow files of data, also in folders two levels below."""
    return bool(_tables_in(folder) or _folders_with_tables(folder))


def _check_memory(num_bytes: int, bytes_of_files: int | None, folder: Path) -> None:
    """Raise DataError if images need more memory than the machine has, or more than their files can explain."""
    has = memory()
    if num_bytes > has:
        raise DataError(
            f"Expected the images of {folder} to fit into memory; they need {num_bytes / 2**30:.1f} GiB, and the "
            f"machine has {has / 2**30:.1f} GiB. Use fewer or smaller images, or a folder of image files, which may "
            f"wait on disk."
        )
    if bytes_of_files is not None and num_bytes > _SLACK_PIXELS + _MAX_PIXELS * bytes_of_files:
        raise DataError(
            f"Expected the images of {folder} to be what its files can hold; {bytes_of_files:,} bytes become "
            f"{num_bytes / 2**30:.1f} GiB. Set image_size to read smaller ones."
        )


def files_of_splits(place: Path, suffixes: Sequence[str] = TABLES) -> list[tuple[Path, Part]]:
    """Find the files and the split that each belongs to, in an order that does not depend on the file system."""
    if place.is_file():
        return [(place, Part.TRAIN)]
    tables, folders = _tables_in(place, suffixes), _folders_with_tables(place, suffixes)
    named = {folder: split_of(folder.name) for folder in folders}
    splits = {} if tables else {folder: split[0] if split and not split[1] else None for folder, split in named.items()}
    if tables and not folders:
        files = _by_name(place, tables, suffixes)
    elif (parts := set(splits.values())) - {None} and len(parts) == len(splits):
        unknown = next((folder.name for folder, part in splits.items() if part is None), None)
        if unknown is not None:
            raise DataError(
                f"Expected only folders of splits (train, valid, test) with tables in {place}, as some are; got "
                f"'{unknown}'. Rename it, or move it elsewhere.{nearest(unknown, SPLIT_NAMES)}"
            )
        files = [
            (file, part) for folder, part in splits.items() if part is not None for file in _whole(folder, suffixes)
        ]
    elif len(folders) == 1 and not tables:
        return files_of_splits(folders[0], suffixes)
    elif folders:
        names = ", ".join(str(folder) for folder in ([place] if tables else []) + folders)
        raise DataError(f"Expected one set of tables in {place}; there are several: {names}. Name one of them.")
    else:
        endings = f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"
        raise DataError(f"Expected files ending in {endings} in {place} or its folders; there are none.")
    if all(part != Part.TRAIN for _, part in files):
        raise DataError(
            f"Expected a training split (train{suffixes[0]}) in {place}; there are only "
            f"{', '.join(file.name for file, _ in files)}."
        )
    return files


def _by_name(folder: Path, tables: list[Path], suffixes: Sequence[str]) -> list[tuple[Path, Part]]:
    """Return the split that each file's name says; where none says any, all train."""
    names = {file: match["before"] if (match := _SHARD.fullmatch(file.stem)) else file.stem for file in tables}
    found = {file: split for file, name in names.items() if (split := split_of(name))}
    if not found:
        return [(file, Part.TRAIN) for file in _whole(folder, suffixes)]
    unknown = next((file.name for file in tables if file not in found), None)
    if unknown is not None:
        raise DataError(
            f"Expected every table in {folder} to be called as its split (train, valid, test, perhaps with a number), "
            f"as some are; got '{unknown}'. Rename it, or move it elsewhere.{nearest(unknown, SPLIT_NAMES)}"
        )
    sets = {(*words, *re.findall(r"\d+", names[file])) for file, (_, words) in found.items()}
    several = set(names.values())
    if len(sets) > 1 or len(several) > len({part for part, _ in found.values()}):
        raise DataError(
            f"Expected one set of tables in {folder}, whose names differ in the split alone; the names begin with "
            f"{', '.join(map(repr, sorted(several)))}. Move each set into a folder."
        )
    return [(file, found[file][0]) for file in _whole(folder, suffixes)]


def _tables_in(folder: Path, suffixes: Sequence[str] = TABLES) -> list[Path]:
    """Find the tables in a folder: no hidden files, no lists of what is in image files, no caches of maps."""
    return sorted(
        entry
        for entry in (folder.iterdir() if folder.is_dir() else ())
        if entry.suffix.lower() in suffixes
        and not (entry.name.startswith((".", "cache-")) or entry.stem.lower() == "metadata" or entry.is_dir())
    )


def _folders_with_tables(folder: Path, suffixes: Sequence[str] = TABLES, depth: int = 2) -> list[Path]:
    inner = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return [at for at in inner if depth and (_tables_in(at, suffixes) or _folders_with_tables(at, suffixes, depth - 1))]


def _whole(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Return the tables in a folder; DataError if pieces are missing of those that are in several."""
    tables = _tables_in(folder, suffixes)
    kinds = [suffix for suffix in suffixes if any(table.suffix.lower() == suffix for table in tables)]
    if len(kinds) > 1:
        raise DataError(
            f"Expected tables of one kind in {folder}; there are {' and '.join(kinds)} files. Keep one kind."
        )
    pieces: dict[str, dict[int, re.Match[str]]] = {}
    for table in tables:
        match = _SHARD.fullmatch(table.stem)
        if match is not None:
            others = pieces.setdefault(match["before"], {})
            number = int(match["number"])
            if number in others or any(other["total"] != match["total"] for other in others.values()):
                raise DataError(
                    f"Expected the pieces of one table as '{match['before']}...' in {folder}; '{table.name}' and "
                    f"'{next(iter(others.values())).string}{table.suffix}' are of two. Keep one of them."
                )
            others[number] = match
    for before, found in pieces.items():
        last = found[max(found)]
        if not last["total"] and min(found) > 1 and not any(m["number"].startswith("0") for m in found.values()):
            continue  # numbers of other things, such as years
        if last["total"]:
            first = int(0 not in found and int(last["total"]) in found)  # some count from 1
            wanted = range(first, first + max(1, int(last["total"])))
        else:
            wanted = range(min(1, min(found)), max(found) + 1)
        missing = next((number for number in wanted if number not in found), None)
        if missing is not None or max(found) > max(wanted):
            shown = f"{max(found) if missing is None else missing:0{len(last['number'])}d}"
            name = f"{before}{shown}{last.string[last.end('number') : last.end('total')] if last['total'] else ''}"
            raise DataError(
                f"Expected all pieces of a table in {folder}, {len(wanted)} of '{before}...'; "
                f"{'there is also' if missing is None else 'there is no'} '{name}{tables[0].suffix}'. Get all of them."
            )
    return tables


def merged_labels(files: Sequence[Path], read: Sequence[Column], column: str) -> tuple[list[Tensor], list[str]]:
    """Return the numbers of classes in the label column of each file, -1 for none, and the classes' names."""
    names, kinds = read[0].names, set[type]()
    for file, found in zip(files, read, strict=True):
        kinds |= {type(value) for value in map(as_label, found.values) if value is not None}
        if len(kinds) > 1:
            raise DataError(f"Expected labels of one type in all files; column '{column}' of {file} has another.")
        if found.names != names:
            raise DataError(
                f"Expected the same class names in all files; those of column '{column}' in {file} differ from "
                f"{files[0]}."
            )
    values = {value for found in read for value in map(as_label, found.values) if value is not None}
    if names is None or any(isinstance(value, str) for value in values):
        ordered = sorted(values)
        check_spellings(map(str, ordered), f"column '{column}' of {files[0]}{' and others' if files[1:] else ''}")
        names, number_of = [str(value) for value in ordered], {value: k for k, value in enumerate(ordered)}
    else:
        number_of = {value: value for value in range(len(names))}
    labels = []
    for file, found in zip(files, read, strict=True):
        numbers = [-1 if value is None else number_of.get(value, -2) for value in map(as_label, found.values)]
        wrong = numbers.index(-2) if -2 in numbers else None
        if wrong is not None:
            row = int((found.places == wrong).argmax())
            raise DataError(
                f"Expected labels from 0 to {len(names) - 1}, one for each class name of {file}, or -1 for none; row "
                f"{row} of column '{column}' holds {found.values[wrong]}."
            )
        labels.append(torch.tensor(numbers, dtype=torch.int64)[torch.from_numpy(found.places)])
    return labels, names


def read_column(table: "Table", column: str) -> Column:
    """Read a column of a table; a value that comes again takes no further memory."""
    known: dict[Any, int] = {}
    places = [_numbers(chunk, known) for _, chunk in table.chunks(column)]
    names = _class_label_names(table.schema.metadata, column)
    return Column(np.concatenate(places) if places else np.zeros(0, np.int64), list(known), names)


def _numbers(chunk: Any, known: dict[Any, int]) -> np.ndarray[Any, Any]:
    """Return the position in ``known`` of each value; new ones are added. No value is expanded to a row of its own."""
    import pyarrow

    encoded = chunk if isinstance(chunk, pyarrow.DictionaryArray) else chunk.dictionary_encode()
    try:
        values = [*encoded.dictionary.to_pylist(), None]
    except UnicodeDecodeError:  # text that is no UTF-8
        raw = encoded.dictionary.cast(pyarrow.large_binary()).to_pylist()
        values = [*(value if value is None else value.decode(errors="surrogateescape") for value in raw), None]
    places = np.array([known.setdefault(value, len(known)) for value in values])
    indices = encoded.indices.fill_null(len(values) - 1).to_numpy(zero_copy_only=False)
    numbers: np.ndarray[Any, Any] = places[indices.astype(np.int64)]
    return numbers


def check_column(schema: Any, file: Path, column: str, kinds: Sequence[str], advice: str) -> None:
    """Raise DataError unless a column is there once and holds integers or strings, or nothing; () stands for any."""
    import pyarrow.types as types

    if schema.names.count(column) != 1:
        found = ", ".join(schema.names) or "none"
        raise DataError(
            f"Expected a column '{column}' in {file}, once; its columns are {found}. {advice}"
            f"{nearest(column, schema.names)}"
        )
    kind = inner = schema.field(column).type
    if types.is_dictionary(kind):
        inner = kind.value_type
    is_kind = {"integers": types.is_integer, "strings": _is_text}
    if kinds and not (types.is_null(inner) or any(is_kind[name](inner) for name in kinds)):
        raise DataError(f"Expected {' or '.join(kinds)} in column '{column}' of {file}; it is of type {kind}. {advice}")


def _class_label_names(metadata: Mapping[bytes, bytes] | None, column: str) -> list[str] | None:
    """Find the names that Hugging Face's ClassLabel feature gives to integer labels."""
    try:
        names = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return [str(name) for name in names] if isinstance(names, list) and names else None


def _cells(file: Path, column: str, rows: Sequence[int]) -> Iterator[tuple[int, bytes | None]]:
    """Read the bytes of some rows (ascending), without holding more than a few hundred rows in memory."""
    waiting, num_bytes = list(reversed(rows)), 0
    with opened_table(file) as table:
        for start, cells in table.chunks(column, rows):
            while waiting and waiting[-1] < start + len(cells):
                row = waiting.pop()
                cell = cells[row - start].as_py()
                num_bytes += len(cell or b"")
                if num_bytes > _MAX_EXPANSION * file.stat().st_size + _SLACK_BYTES:
                    raise DataError(f"Expected images in {file}; its columns expand to far more than it holds.")
                yield row, cell


class _Parquet:
    """A parquet file that has been opened."""

    def __init__(self, opened: BinaryIO, columns: Sequence[str]) -> None:
        import pyarrow.parquet

        self._file = pyarrow.parquet.ParquetFile(opened)
        self.schema = self._file.schema_arrow
        _check_claims(self._file.metadata, opened)
        texts = [
            name for name in columns if self.schema.names.count(name) == 1 and _is_text(self.schema.field(name).type)
        ]
        if texts:  # not expanded: a long text may stand in every row
            about = self._file.metadata
            self._file = pyarrow.parquet.ParquetFile(opened, metadata=about, read_dictionary=texts)

    def chunks(self, column: str, rows: Sequence[int] | None = None) -> Iterator[tuple[int, Any]]:
        """Iterate over parts of a column with the first row of each; over those with some rows (ascending) alone.

        Where values may be of any size a part has one row: each may expand to 2 GiB, whatever the footer claims.
        """
        import pyarrow.compute as compute
        import pyarrow.types as types

        about, start = self._file.metadata, 0
        wanted = np.array(rows) if rows is not None else None
        kind = self._file.schema_arrow.field(column).type
        name = f"{column}.bytes" if types.is_struct(kind) else column
        # an integer or a number in a dictionary takes no more than 8 bytes
        at_once = 2**16 if types.is_integer(kind) or types.is_dictionary(kind) else 1
        for number in range(about.num_row_groups):
            group = about.row_group(number)
            first, start = start, start + group.num_rows
            if wanted is not None and not ((wanted >= first) & (wanted < start)).any():
                continue
            for batch in self._file.iter_batches(at_once, row_groups=[number], columns=[name]):
                cells = batch.column(column)
                yield first, compute.struct_field(cells, "bytes") if name != column else cells
                first += len(cells)


class _Arrow:
    """An Arrow file, in the format of streams or of files, that has been mapped into memory."""

    def __init__(self, opened: BinaryIO) -> None:
        import pyarrow

        mapped = pyarrow.py_buffer(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
        stream = mapped.slice(8) if mapped.slice(0, 6).to_pybytes() == b"ARROW1" else mapped
        for message in pyarrow.ipc.MessageReader.open_stream(stream):
            if message.type != "schema" and _is_compressed(message.metadata.to_pybytes(), message.type):
                raise pyarrow.ArrowInvalid("it is compressed, so that its size is not known; save it as parquet")
        self._table = pyarrow.ipc.open_stream(stream).read_all()
        self.schema = self._table.schema

    def chunks(self, column: str, rows: Sequence[int] | None = None) -> Iterator[tuple[int, Any]]:
        import pyarrow.compute as compute
        import pyarrow.types as types

        first = 0
        for cells in self._table.column(column).chunks:
            cells.validate(full=True)
            yield first, compute.struct_field(cells, "bytes") if types.is_struct(cells.type) else cells
            first += len(cells)


Table = _Parquet | _Arrow


def _is_text(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def _is_compressed(message: bytes, kind: str) -> bool:
    """Whether the buffers of an Arrow message are compressed: RecordBatch.compression in Arrow's Message.fbs."""

    def field(table: int, number: int) -> int | None:
        fields = table - struct.unpack_from("<i", message, table)[0]
        inside = 4 + 2 * number < struct.unpack_from("<H", message, fields)[0]
        offset = struct.unpack_from("<H", message, fields + 4 + 2 * number)[0] if inside else 0
        return table + offset if offset else None

    def table_at(place: int | None) -> int:
        return (place or 0) + int(struct.unpack_from("<I", message, place or 0)[0])

    header = table_at(field(table_at(0), 2))
    return field(table_at(field(header, 1)) if kind == "dictionary" else header, 3) is not None


def _check_claims(about: Any, opened: BinaryIO) -> None:
    """Refuse a file that claims far more than its bytes can hold, before any memory is taken for it."""
    size = os.fstat(opened.fileno()).st_size
    groups = [about.row_group(group) for group in range(about.num_row_groups)]
    rows = sum(group.num_rows for group in groups)
    # not of their columns: pyarrow ends the process if what a footer says of one is damaged
    largest = max((group.total_byte_size for group in groups), default=0)
    if rows != about.num_rows or rows > size // 8 + _SLACK_ROWS or largest > _MAX_EXPANSION * size + _SLACK_BYTES:
        raise DataError(
            f"Expected a parquet file of images, but {opened.name} cannot be read: it claims {about.num_rows:,} rows "
            f"and {largest:,} bytes in a group of them, in a file of {size:,} bytes. Download it again."
        )


@contextmanager
def opened_table(file: Path, columns: Sequence[str] = ()) -> Iterator[Table]:
    """Open a table, for ``read_column`` of some columns; DataError if it cannot be read, or without pyarrow."""
    try:
        import pyarrow
        import pyarrow.parquet
    except (ImportError, RuntimeError) as error:
        raise DataError(f"Reading {file} needs pyarrow: pip install 'lasem[parquet]'.") from error
    kind = "arrow" if file.suffix.lower() == ".arrow" else "parquet"
    try:
        if not file.is_file():  # a pipe would never end
            raise OSError("it is no file")
        with file.open("rb") as opened:  # pyarrow would take the name for UTF-8
            yield _Arrow(opened) if kind == "arrow" else _Parquet(opened, columns)
    except (pyarrow.ArrowException, OSError, ValueError, struct.error) as error:  # ValueError: an empty file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, pyarrow.ArrowInvalid) and file.suffix.lower() not in TABLES and not _begins_right(file):
            raise DataError(
                f"Expected labelled images: a folder with a folder of images for each class (CLASS/*.png), or a "
                f"parquet file with a column of encoded images and one of labels; {file} is neither."
            ) from error
        raise DataError(f"Expected a {kind} file, but {file} cannot be read: {reason}. Download it again.") from error


def _begins_right(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(4) == b"PAR1"
