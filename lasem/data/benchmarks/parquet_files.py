"""Benchmarks as the Hugging Face Hub keeps them: parquet files with an image and a label column."""

from __future__ import annotations

from pathlib import Path

from lasem.data.decode import Channels
from lasem.data.labelled import Labelled
from lasem.data.parquet import ParquetReader


def has_parquet(folder: Path) -> bool:
    """Whether a folder, or ``data/`` in it, holds parquet files."""
    return any(any(place.glob("*.parquet")) for place in (folder, folder / "data"))


def parquet_labelled(folder: Path, image_column: str, label_column: str, channels: Channels = 3) -> Labelled | None:
    """The images of a folder's parquet files; None if there are none."""
    if not has_parquet(folder):
        return None
    reader = ParquetReader(path=str(folder), image_column=image_column, label_column=label_column, channels=channels)
    return reader.labelled()
