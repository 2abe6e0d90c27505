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


class DeviceError(LasemError):
    """The device that was asked for is not there, or cannot compute as it was asked to."""


class TrainingError(LasemError):
    """Training cannot go on, for instance because the loss is no longer finite."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known name closest to ``name``, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def check_choice(setting: str, value: str, choices: Iterable[str]) -> None:
    """Raise ConfigError unless ``value`` is one of ``choices``; the message names the nearest one."""
    known = tuple(choices)
    if value not in known:
        raise ConfigError(f"{setting} must be one of {', '.join(known)}; got '{value}'.{nearest(value, known)}")


def check_range(
    setting: str,
    value: float,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> None:
    """Raise ConfigError unless ``value`` is finite and inside the given bounds."""
    inside = (
        value == value
        and abs(value) != float("inf")
        and (least is None or value >= least)
        and (above is None or value > above)
        and (most is None or value <= most)
        and (below is None or value < below)
    )
    if not inside:
        bounds = [
            f"{word} {bound}"
            for word, bound in (("at least", least), ("above", above), ("at most", most), ("below", below))
            if bound is not None
        ]
        raise ConfigError(f"{setting} must be {' and '.join(bounds) or 'finite'}; got {value}.")
