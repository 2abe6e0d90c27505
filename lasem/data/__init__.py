"""Tasks, streams of tasks, and readers that cut them out of tensors, tables, image folders and digits."""

from lasem.data.benchmarks import BENCHMARKS
from lasem.data.ctrl import CtrlReader
from lasem.data.digits import DigitsReader, DigitStyle
from lasem.data.folders import FolderReader
from lasem.data.images import AbstractImages, FileImages, SelectedImages, TensorImages
from lasem.data.labelled import CutSettings, Labelled
from lasem.data.parquet import ParquetReader
from lasem.data.readers import TensorReader
from lasem.data.split import Part, Split, Standardise, channel_statistics, make_splits, standardise
from lasem.data.task import AbstractReader, Task, TaskStream, child_generator, task_on
from lasem.data.texts import TextReader
from lasem.data.tokens import Texts, Tokenizer, Vocabulary, as_tokens

__all__ = [
    "BENCHMARKS",
    "AbstractImages",
    "AbstractReader",
    "CtrlReader",
    "CutSettings",
    "DigitStyle",
    "DigitsReader",
    "FileImages",
    "FolderReader",
    "Labelled",
    "ParquetReader",
    "Part",
    "SelectedImages",
    "Split",
    "Standardise",
    "Task",
    "TaskStream",
    "TensorImages",
    "TensorReader",
    "TextReader",
    "Texts",
    "Tokenizer",
    "Vocabulary",
    "as_tokens",
    "channel_statistics",
    "child_generator",
    "make_splits",
    "standardise",
    "task_on",
]
