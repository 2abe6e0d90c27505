"""Every error that a user can cause or meet: what was expected, what came, what to do; and texts of strangers."""

import difflib
import shlex
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
    """Return ``" Did you mean 'x'?"`` for the known name closest to ``name``, or an empty string if none is near."""
    word = name.strip("-").lower()[:80]

    def likeness(other: str) -> float:
        same = other.strip("-").lower()[:80]
        ratio = difflib.SequenceMatcher(None, word, same).ratio()
        return ratio if ratio >= (0.6 if word[:1] == same[:1] else 0.8) else 0.0  # few mistype the first letter

    close = max(known, key=likeness, default="")
    return f" Did you mean '{close}'?" if likeness(close) else ""


def printable(text: str) -> str:
    """Return a text in which nothing moves a terminal's cursor or turns the direction of reading: ``\\x1b``."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(*words: str) -> str:
    """Return words as a shell reads them, for a command that a person may copy; nothing in it is hidden."""
    return " ".join(shlex.quote(word) if word.isprintable() else f"$'{_escaped(word)}'" for word in words)


def csv_text(text: str) -> str:
    """Return a text as a cell of CSV, printable; an apostrophe precedes what a spreadsheet would compute."""
    shown = printable(text)
    try:
        float(shown)
    except ValueError:
        return f"'{shown}" if shown.startswith(tuple("=+-@\uff1d\uff0b\uff0d\uff20")) else shown
    return shown


def _escaped(word: str) -> str:
    """The inside of a shell's ``$'...'``: its bytes, but for printable characters."""
    hidden = {c for c in word if not c.isprintable() or c in "\\'"}
    errors = {c: "surrogateescape" if "\udc80" <= c <= "\udcff" else "surrogatepass" for c in hidden}
    escaped = {c: "".join(f"\\x{byte:02x}" for byte in c.encode("utf-8", errors[c])) for c in hidden}
    return "".join(escaped.get(c, c) for c in word)
