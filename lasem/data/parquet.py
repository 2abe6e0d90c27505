"""Parquet files with an image column and a label column, as the Hugging Face Hub keeps them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from lasem.data.decode import decode
from lasem.data.images import TensorImages
from lasem.data.labelled import Labelled
from lasem.data.readers import SPLIT_NAMES, FileReader, existing_path
from lasem.data.split import Part
from lasem.errors import DataError, nearest

_ROWS_AT_ONCE = 256
_MAGIC = b"PAR1"
_SET_COLUMNS = "Set image_column and label_column (lasem learn and evaluate: --image-column, --label-column)."
_SLACK_ROWS, _SLACK_BYTES, _MAX_EXPANSION = 10**5, 2**26, 100


@final
@dataclass(frozen=True, kw_only=True)
class ParquetReader(FileReader):
    """Cuts parquet files into tasks. The images that tasks use wait decoded in memory.

    Cells of the image column hold an encoded image: its bytes, or a struct with a field ``bytes``. Labels are integers,
    named by the file's ClassLabel feature if it has one, or strings. Needs pyarrow, the extra ``parquet``.
    """

    name: ClassVar[str] = "parquet"

    path: str
    """One file; or a folder with a file for each split (train, valid, test), each in one piece or in shards
    (``train-00000-of-00002.parquet``), in the folder itself, in ``data/`` or in a folder for each split."""
    image_column: str = "image"
    """Column of the images."""
    label_column: str = "label"
    """Column of the classes."""

    def labelled(self) -> Labelled:
        files = _files_of_splits(existing_path(self.path))
        labels, class_names = _read_labels([file for file, _ in files], self.image_column, self.label_column)
        parts = torch.cat([torch.full((len(of_file),), part) for (_, part), of_file in zip(files, labels, strict=True)])
        rows = [(file, len(of_file)) for (file, _), of_file in zip(files, labels, strict=True)]
        return Labelled(torch.cat(labels), parts, class_names, lambda used: self._decode(rows, used), self.path)

    def _decode(self, files: Sequence[tuple[Path, int]], used: Tensor) -> TensorImages:
        images, first = torch.empty(0, dtype=torch.uint8), ""
        place, before = 0, 0
        for file, num_rows in files:
            rows = used[(used >= before) & (used < before + num_rows)] - before
            for row, cell in _cells(file, self.image_column, rows.tolist()):
                where = f"{file}, row {row}, column '{self.image_column}'"
                if cell is None:
                    raise DataError(
                        f"Expected an encoded image in every row, but {where} holds none. Leave the row out."
                    )
                image = decode(cell, where, channels=self.channels, size=self.image_size)
                if place == 0:
                    _check_memory(len(used) * image.numel(), file.parent)
                    images, first = torch.empty(len(used), *image.shape, dtype=torch.uint8), where
                if image.shape != images.shape[1:]:
                    raise DataError(
                        f"Expected all images to be as large as the one in {first}, {tuple(images.shape[2:])} (height, "
                        f"width); {where} is {tuple(image.shape[1:])}. Set image_size to resize all."
                    )
                images[place] = image
                place += 1
            before += num_rows
        return TensorImages(images)


def _check_memory(num_bytes: int, folder: Path) -> None:
    """Raise DataError if images need more memory than the machine has."""
    try:
        has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # a system that does not say
        return
    if num_bytes > has:
        raise DataError(
            f"Expected the images of {folder} to fit into memory; they need {num_bytes / 2**30:.1f} GiB, and the "
            f"machine has {has / 2**30:.1f} GiB. Use fewer or smaller images, or a folder of image files, which may "
            f"wait on disk."
        )


def _files_of_splits(place: Path) -> list[tuple[Path, Part]]:
    """Find the files and the split that each belongs to, in an order that does not depend on the file system."""
    if place.is_file():
        return [(place, Part.TRAIN)]
    folder = next((folder for folder in (place, place / "data") if _parquet_in(folder)), None)
    if folder is not None:
        found = [(file, SPLIT_NAMES.get(re.split(r"[-_.]", file.stem)[0].lower())) for file in _parquet_in(folder)]
        if all(part is None for _, part in found):
            return [(file, Part.TRAIN) for file, _ in found]
        unknown = next((file.name for file, part in found if part is None), None)
        if unknown is not None:
            raise DataError(
                f"Expected the name of every parquet file in {folder} to begin with its split (train, valid, test), as "
                f"some do; got '{unknown}'. Rename it, or move it elsewhere.{nearest(unknown, SPLIT_NAMES)}"
            )
    else:
        found = [
            (file, SPLIT_NAMES.get(inner.name.lower()))
            for inner in sorted(place.iterdir())
            for file in _parquet_in(inner)
        ]
        if all(part is None for _, part in found):
            raise DataError(f"Expected files ending in .parquet in {place} (or its data/ or train/); there are none.")
    files = [(file, part) for file, part in found if part is not None]
    if all(part != Part.TRAIN for _, part in files):
        raise DataError(
            f"Expected a training split (train.parquet) in {place}; there are only "
            f"{', '.join(file.name for file, _ in files)}."
        )
    return files


def _parquet_in(folder: Path) -> list[Path]:
    entries = folder.iterdir() if folder.is_dir() else ()
    return sorted(entry for entry in entries if entry.suffix.lower() == ".parquet" and not entry.name.startswith("."))


def _read_labels(files: Sequence[Path], image_column: str, label_column: str) -> tuple[list[Tensor], list[str]]:
    """Read the label column of every file: numbers of classes, and the classes' names."""
    read: list[list[Any]] = []
    kind: type | None = None
    names: list[str] | None = None
    for file in files:
        with _opened(file) as parquet:
            _check_claims(parquet, file)
            schema = parquet.schema_arrow
            for column in (image_column, label_column):
                if column not in schema.names:
                    raise DataError(
                        f"Expected a column '{column}' in {file}; its columns are {', '.join(schema.names)}. "
                        f"{_SET_COLUMNS}{nearest(column, schema.names)}"
                    )
            _check_image_type(schema.field(image_column).type, file, image_column)
            values = parquet.read(columns=[label_column]).column(0).to_pylist()
            named = _class_label_names(schema.metadata, label_column)
        for row, value in enumerate(values):
            if type(value) not in (int, str) or type(value) is not type(values[0]):
                raise DataError(
                    f"Expected integers or strings, one in every row, in column '{label_column}' of {file}; row {row} "
                    f"holds {value!r}. Leave the row out, or take another column. {_SET_COLUMNS}"
                )
        kind = kind or next(map(type, values), None)
        if values and type(values[0]) is not kind:
            raise DataError(f"Expected labels of one type in all files; column '{label_column}' of {file} has another.")
        if read and named != names:
            raise DataError(
                f"Expected the same class names in all files; those of column '{label_column}' in {file} differ from "
                f"{files[0]}."
            )
        read.append(values)
        names = named
    if names is None or kind is str:
        known = sorted({value for values in read for value in values})
        names = [str(value) for value in known]
        number_of = {value: number for number, value in enumerate(known)}
        read = [[number_of[value] for value in values] for values in read]
    for file, values in zip(files, read, strict=True):
        wrong = next((row for row, value in enumerate(values) if not 0 <= value < len(names)), None)
        if wrong is not None:
            raise DataError(
                f"Expected labels from 0 to {len(names) - 1}, one for each class name of {file}; row {wrong} of column "
                f"'{label_column}' holds {values[wrong]}."
            )
    return [torch.tensor(values, dtype=torch.int64) for values in read], names


def _check_claims(parquet: Any, file: Path) -> None:
    """Refuse a file that claims far more than its bytes can hold, before any memory is taken for it."""
    size, about = file.stat().st_size, parquet.metadata
    groups = [about.row_group(group) for group in range(about.num_row_groups)]
    rows = sum(group.num_rows for group in groups)
    largest = max((group.total_byte_size for group in groups), default=0)
    if rows != about.num_rows or rows > size + _SLACK_ROWS or largest > _MAX_EXPANSION * size + _SLACK_BYTES:
        raise DataError(
            f"Expected a parquet file of images, but {file} cannot be read: it claims {about.num_rows:,} rows and "
            f"{largest:,} bytes in a group of them, in a file of {size:,} bytes. Download it again."
        )


def _check_image_type(kind: Any, file: Path, column: str) -> None:
    import pyarrow.types as types

    inner = kind
    if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        inner = kind.field("bytes").type
    if not (types.is_binary(inner) or types.is_large_binary(inner)):
        raise DataError(
            f"Expected encoded images in column '{column}' of {file}, as binary or a struct with binary 'bytes'; it is "
            f"of type {kind}. {_SET_COLUMNS}"
        )


def _class_label_names(metadata: dict[bytes, bytes] | None, column: str) -> list[str] | None:
    """Find the names that Hugging Face's ClassLabel feature gives to integer labels."""
    try:
        names = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names] if isinstance(names, list) and names else None


def _cells(file: Path, column: str, rows: Sequence[int]) -> Iterator[tuple[int, bytes | None]]:
    """Read the bytes of some rows (ascending), without holding more than a few hundred rows in memory."""
    import pyarrow.compute as compute
    import pyarrow.types as types

    waiting = list(reversed(rows))
    with _opened(file) as parquet:
        first = 0
        for group in range(parquet.num_row_groups):
            end = first + parquet.metadata.row_group(group).num_rows
            if waiting and waiting[-1] < end:
                start = first
                for batch in parquet.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=[column]):
                    cells = batch.column(0)
                    if types.is_struct(cells.type):
                        cells = compute.struct_field(cells, "bytes")
                    while waiting and waiting[-1] < start + len(cells):
                        row = waiting.pop()
                        yield row, cells[row - start].as_py()
                    start += len(cells)
            first = end


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except (ImportError, RuntimeError) as error:
        raise DataError(f"Reading {file} needs pyarrow: pip install 'lasem[parquet]'.") from error
    try:
        with pyarrow.parquet.ParquetFile(file) as parquet:
            yield parquet
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, pyarrow.ArrowInvalid) and file.suffix.lower() != ".parquet" and not _begins_right(file):
            raise DataError(
                f"Expected labelled images: a folder with a folder of images for each class (CLASS/*.png), or a "
                f"parquet file with a column of encoded images and one of labels; {file} is neither."
            ) from error
        raise DataError(f"Expected a parquet file, but {file} cannot be read: {reason}. Download it again.") from error


def _begins_right(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(_MAGIC)) == _MAGIC
