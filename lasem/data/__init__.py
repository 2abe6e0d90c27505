"""Tasks, streams of tasks, and readers that cut them out of tensors, parquet files, image folders and digits."""

from lasem.data.benchmarks import BENCHMARKS
from lasem.data.cut import CutSettings
from lasem.data.digits import DigitsReader, DigitStyle
from lasem.data.folders import FolderReader
from lasem.data.images import AbstractImages, FileImages, SelectedImages, TensorImages
from lasem.data.labelled import Labelled
from lasem.data.parquet import ParquetReader
from lasem.data.placing import task_on
from lasem.data.planted import PlantedReader
from lasem.data.seeds import child_generator
from lasem.data.split import Split, Standardise, channel_statistics, make_splits, standardise
from lasem.data.stream import AbstractReader, TaskStream
from lasem.data.task import Task
from lasem.data.tensors import TensorReader
from lasem.data.tokens import Vocabulary, as_tokens

__all__ = [
    "BENCHMARKS",
    "AbstractImages",
    "AbstractReader",
    "CutSettings",
    "DigitStyle",
    "DigitsReader",
    "FileImages",
    "FolderReader",
    "Labelled",
    "ParquetReader",
    "PlantedReader",
    "SelectedImages",
    "Split",
    "Standardise",
    "Task",
    "TaskStream",
    "TensorImages",
    "TensorReader",
    "Vocabulary",
    "as_tokens",
    "channel_statistics",
    "child_generator",
    "make_splits",
    "standardise",
    "task_on",
]
