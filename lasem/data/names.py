"""Names that files and folders give to streams and splits."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lasem.data.cut import TEST, TRAIN, VALID
from lasem.errors import DataError, nearest

SPLIT_NAMES = {
    "train": TRAIN,
    "training": TRAIN,
    "valid": VALID,
    "validation": VALID,
    "val": VALID,
    "dev": VALID,
    "test": TEST,
    "testing": TEST,
}
"""What data sets call their splits."""


def existing_path(path: str) -> Path:
    """Give the path, ``~`` expanded.

    Raises:
        DataError: if nothing is there; the message names the nearest neighbour.
    """
    place = Path(path).expanduser()
    if not place.exists():
        there = sorted(entry.name for entry in place.parent.iterdir()) if place.parent.is_dir() else []
        raise DataError(f"Expected a file or folder at {place}, but there is none.{nearest(place.name, there)}")
    return place


def stream_name(path: Path) -> str:
    """Name a stream after its file or folder, in the letters that a task's name may have."""
    full = Path(os.path.abspath(path))  # not resolve(): a link is called what its owner called it
    return re.sub(r"[^A-Za-z0-9._-]+", "-", full.name if full.is_dir() else full.stem)[:80] or "stream"
