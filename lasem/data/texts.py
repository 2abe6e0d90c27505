"""Labelled texts in tables: lists (.csv, .tsv, .jsonl), parquet and Arrow files, one for all or one for each split."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final, final

import numpy as np
import torch

from lasem.data.folders import LIST_SUFFIXES, read_list
from lasem.data.labelled import CutCounts, Labelled, and_left_out, as_label, counted, cut, cut_classes
from lasem.data.parquet import (
    TABLES,
    Column,
    check_column,
    files_of_splits,
    merged_labels,
    opened_table,
    read_column,
)
from lasem.data.readers import existing_path, split_of, stream_name
from lasem.data.split import Part
from lasem.data.task import AbstractReader, Task, TaskStream
from lasem.data.tokens import Texts
from lasem.errors import ConfigError, DataError, nearest

SUFFIXES: Final = (*LIST_SUFFIXES, *TABLES)
"""Endings of tables that may hold texts."""

_SET_COLUMNS = "Set text_column and label_column (--text-column, --label-column)."
_SPLIT = "split"
_KINDS = ("strings", "integers")


@final
@dataclass(frozen=True, kw_only=True)
class TextReader(CutCounts, AbstractReader):
    """Cuts tables of labelled texts into tasks, for networks that have a tokenizer, such as hf:FOLDER.

    A table has a column of texts and one of labels, which are strings or integers. Rows without a text or a label are
    left out. A column ``split`` may say of each row whether it is to train, to validate or to test.
    """

    name: ClassVar[str] = "texts"

    path: str
    """A .csv, .tsv, .jsonl, .parquet or .arrow file; or a folder with a file for each split (train.csv, valid.csv,
    test.csv), as ParquetReader finds them. The first line of a .csv or .tsv file names its columns."""
    text_column: str = "text"
    """Column of the texts."""
    label_column: str = "label"
    """Column of the classes."""
    task_column: str | None = None
    """Column whose values are the tasks, in the order in which they come first; none: classes are drawn for tasks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task_column is not None and self.classes_per_task is not None:
            raise ConfigError("TextReader.classes_per_task draws classes for tasks, task_column names tasks; set one.")

    def labelled(self) -> Labelled:
        """Find every text's class and split; DataError if there are no labelled texts."""
        return self._read()[0]

    def open(self, seed: int) -> TaskStream:
        """Open the stream; it and its tasks are named after the file or folder."""
        data, tasks = self._read()
        name = stream_name(self.path)
        if tasks is None:
            return data.stream(cut(self, data, seed), name=name, standardise="none")
        values = list(dict.fromkeys(tasks))
        if self.num_tasks is not None and self.num_tasks > len(values):
            raise ConfigError(
                f"TextReader.num_tasks must be at most {len(values)}, the number of values in column "
                f"'{self.task_column}'; got {self.num_tasks}."
            )
        streams = []
        for value in values[: self.num_tasks]:
            of_task = data.only(torch.tensor([task == value for task in tasks]))
            classes = torch.unique(of_task.labels).tolist()
            called = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{name}-{value}")[:100]
            cuts = cut_classes(self, of_task, seed, [classes])
            streams.append((called, of_task.stream(cuts, name=name, standardise="none")))

        def task_at(index: int) -> Task:
            called, stream = streams[index]
            return replace(stream[0], name=called)

        return TaskStream.made_by(task_at, name=name, num_tasks=len(streams))

    def _read(self) -> tuple[Labelled, list[Any] | None]:
        """Read the texts, and the task of each one if a column has it."""
        place = existing_path(self.path)
        if place.is_file() and place.suffix.lower() not in SUFFIXES:
            known = ", ".join(SUFFIXES)
            raise DataError(f"Expected a table of texts ({known}), or a folder with one for each split; got {place}.")
        files = files_of_splits(place, SUFFIXES)
        wanted = [column for column in (self.text_column, self.label_column, self.task_column) if column is not None]
        read = [(file, part, _columns(file, wanted, _SPLIT)) for file, part in files]
        numbers, class_names = merged_labels(
            [file for file, _ in files], [columns[self.label_column] for *_, columns in read], self.label_column
        )
        labels = torch.cat(numbers)
        texts = [text for file, _, columns in read for text in _texts(columns[self.text_column], file)]
        parts = torch.tensor([part for row in read for part in _parts(*row, self.text_column)])
        of_tasks = self.task_column or self.label_column
        tasks = [as_label(value) for *_, columns in read for value in _values(columns[of_tasks])]
        left_out = [
            "empty" if not text.strip() else "without a label" if label < 0 else "without a task" if none else ""
            for text, label, none in zip(texts, labels.tolist(), [task is None for task in tasks], strict=True)
        ]
        kept = torch.tensor([not why for why in left_out])
        data = Labelled(
            labels,
            parts,
            class_names,
            lambda used: Texts([texts[row] for row in used.tolist()]),
            self.path,
            tuple((Part(part), why) for part, why in zip(parts.tolist(), left_out, strict=True) if why),
            "texts",
            texts.__getitem__,
        )
        if not bool(kept.any()):
            none = and_left_out(counted(data.left_out))
            raise DataError(f"Expected texts with labels in {self.path}; there are none{none}. {_SET_COLUMNS}")
        tasks = [task for task, why in zip(tasks, left_out, strict=True) if not why]
        return data.only(kept), tasks if self.task_column else None


def texts_in(file: Path, text_column: str) -> Iterator[str]:
    """Read texts without labels: each line that is not blank; or of a table a column, with empty cells.

    DataError if the file cannot be read, or is a table without that column.
    """
    if file.suffix.lower() in SUFFIXES:
        yield from _texts(_columns(file, [text_column])[text_column], file)
        return
    try:
        with file.open(encoding="utf-8-sig") as opened:
            yield from (line.rstrip("\n") for line in opened if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Expected a text in each line of {file}; it cannot be read: {error}.") from error


def _columns(file: Path, wanted: Sequence[str], *further: str) -> dict[str, Column]:
    """Read columns of a table, and further ones that it has."""
    if file.suffix.lower() not in LIST_SUFFIXES:
        with opened_table(file, (*wanted, *further)) as table:
            for place, column in enumerate(wanted):
                check_column(table.schema, file, column, _KINDS[: None if place else 1], _SET_COLUMNS)
            also = [column for column in further if table.schema.names.count(column) == 1]
            return {column: read_column(table, column) for column in (*wanted, *also)}
    rows = read_list(file, "texts", strict=True)
    there = list(dict.fromkeys(name for row in rows for name in row))
    for column in wanted:
        if column not in there:
            no_header = "" if file.suffix.lower() == ".jsonl" else " Its first line must name the columns."
            raise DataError(
                f"Expected a column '{column}' in {file}; its columns are {', '.join(map(str, there)) or 'none'}."
                f"{no_header} {_SET_COLUMNS}{nearest(column, there)}"
            )
    return {column: _column(rows, column, file) for column in (*wanted, *further) if column in there}


def _column(rows: Sequence[dict[str, Any]], column: str, file: Path) -> Column:
    known: dict[Any, int] = {}
    places = []
    for number, row in enumerate(rows, 1):
        value = row.get(column)
        if not isinstance(value, str | int | float | None):
            raise DataError(
                f"Expected text or a number in column '{column}' of {file}; row {number} has a {type(value).__name__}."
            )
        places.append(known.setdefault(value.strip() if isinstance(value, str) else value, len(known)))
    return Column(np.array(places, dtype=np.int64), list(known))


def _values(column: Column) -> list[Any]:
    return [column.values[place] for place in column.places.tolist()]


def _texts(column: Column, file: Path) -> list[str]:
    """Return the text of each row, empty where there is none."""
    wrong = next((value for value in column.values if not isinstance(value, str | None)), None)
    if wrong is not None:
        raise DataError(f"Expected texts in {file}; got the number {wrong}. {_SET_COLUMNS}")
    return [value or "" for value in _values(column)]


def _parts(file: Path, part: Part, columns: Mapping[str, Column], text_column: str) -> list[Part]:
    """Return the split of each row: its own if it says one, else the file's."""
    if _SPLIT not in columns:
        return [part] * len(columns[text_column].places)
    spoken = {}
    for value in columns[_SPLIT].values:
        named = split_of(str(value)) if value not in (None, "") else (part, ())
        if named is None:
            raise DataError(f"Expected train, valid or test in column {_SPLIT} of {file}; got {value!r}.")
        spoken[value] = named[0]
    return [spoken[value] for value in _values(columns[_SPLIT])]
