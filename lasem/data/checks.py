"""Checks that several files of this room share."""

from __future__ import annotations

import os
from collections.abc import Sequence

from torch import Tensor

from lasem.errors import ConfigError, DataError, check_range


def check_count(setting: str, value: int, *, least: int, most: int | None = None) -> None:
    """Raise ConfigError unless ``value`` is an integer inside the bounds."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{setting} must be an integer; got {value!r}.")
    check_range(setting, value, least=least, most=most)


def check_memory(num_bytes: int, what: str) -> None:
    """Raise DataError if something needs more memory than the machine has."""
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # a system that does not tell
        return
    if num_bytes > there:
        raise DataError(
            f"Expected {what} to fit into memory; they need {num_bytes / 2**30:.1f} GiB, and the machine has "
            f"{there / 2**30:.1f} GiB. Use fewer or smaller images, or a folder of image files, which may wait on disk."
        )


def check_unique(names: Sequence[str], what: str) -> None:
    """Raise DataError if a name comes twice."""
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DataError(f"Expected a different name for each {what}; these come more than once: {', '.join(twice)}.")


def check_labels(labels: Tensor, num_classes: int, where: str = "") -> None:
    """Raise DataError for a label that is no class's number; ``where`` says in brackets which labels these are."""
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if len(outside):
        raise DataError(
            f"Expected labels from 0 to {num_classes - 1}, one for each of {num_classes} classes{where}; got "
            f"{int(outside[0])}."
        )


def check_image_settings(kind: str, image_size: int | None, channels: int) -> None:
    """Raise ConfigError for an image size or a number of channels that no reader can give."""
    if image_size is not None:
        check_count(f"{kind}.image_size", image_size, least=1, most=8192)
    if channels not in (1, 3):
        raise ConfigError(f"{kind}.channels must be 1 (grey) or 3 (colour); got {channels}.")
