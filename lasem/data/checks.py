"""Checks that several files of this room share."""

from __future__ import annotations

from collections.abc import Sequence

from lasem.errors import ConfigError, DataError, check_range


def check_count(setting: str, value: int, *, least: int, most: int | None = None) -> None:
    """Raise ConfigError unless ``value`` is an integer inside the bounds."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{setting} must be an integer; got {value!r}.")
    check_range(setting, value, least=least, most=most)


def check_unique(names: Sequence[str], what: str) -> None:
    """Raise DataError if a name comes twice."""
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DataError(f"Expected a different name for each {what}; these come more than once: {', '.join(twice)}.")


def check_image_settings(kind: str, image_size: int | None, channels: int) -> None:
    """Raise ConfigError for an image size or a number of channels that no reader can give."""
    if image_size is not None:
        check_count(f"{kind}.image_size", image_size, least=1, most=8192)
    if channels not in (1, 3):
        raise ConfigError(f"{kind}.channels must be 1 (grey) or 3 (colour); got {channels}.")
