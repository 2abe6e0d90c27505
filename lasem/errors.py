"""Every error that a user can cause or meet: what was expected, what came, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LasemError(Exception):
    """Base of every error that lasem raises on purpose."""


class ConfigError(LasemError):
    """A setting is out of range, misspelt, or does not fit another one."""


class DataError(LasemError):
    """A file, an image, a label or a whole stream is not what it must be."""


class ShapeError(LasemError):
    """A tensor or an image has another shape than the network or the mechanism needs."""


class TaskError(LasemError):
    """A task name is unknown, or was learned already."""


class StorageError(LasemError):
    """A folder on disk cannot be used: missing, incomplete, damaged, or held by another process."""


class MovedError(StorageError):
    """A folder was moved or removed while it was in use."""


class DeviceError(LasemError):
    """The device that was asked for is not there, or cannot compute as it was asked to."""


class TrainingError(LasemError):
    """Training cannot go on, for instance because the loss is no longer finite."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known name closest to ``name``, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""
