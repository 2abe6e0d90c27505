"""A model on disk: an index, and tensors in files that are named by their content and never changed.

``config.json`` is replaced last and names everything with checksums, so the folder holds the model before or after a
change, never one between; who read the index a moment ago still finds its files, or finds another index::

    config.json                the index: settings, the tasks in order, and the file of each part
    parts/SUM.safetensors      named tensors: what a task owns, a version of a shared layer, ...

A model's folder may come from a stranger. Nothing in it is executed, no name in it becomes a path, no symbolic link
leads out of it, and a file's size is looked at before its content.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, final

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from lasem.errors import LasemError, MovedError, StorageError
from lasem.files import MAX_INDEX_BYTES, check_inside, checksum, parse_json, read_bytes, write_file
from lasem.methods.model import StoredPart, count
from lasem.training import EARLIER

FORMAT_VERSION = 3

LEARNING = ".learning"
"""The folder in a model's folder that has the state of the task under way."""

_INDEX, _PARTS, _LOCK, _CHECKSUM = "config.json", "parts", ".lock", "checksum"
_PART_NAME = re.compile(r"[0-9a-f]{64}\.safetensors")
_MAX_TRIES = 20

Result = TypeVar("Result")


@final
class ModelFolder:
    """The folder of one model. One process at a time changes it (``locked``); reading takes no lock."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._parts = self.directory / _PARTS

    def index_bytes(self) -> bytes:
        """Return the index as it is in its file; StorageError if there is none."""
        return read_bytes(self.directory / _INDEX, inside=self.directory, max_bytes=MAX_INDEX_BYTES)

    def index(self) -> dict[str, Any] | None:
        """Return the index; None where no model is yet.

        Raises:
            StorageError: if the folder holds something else, a damaged index, or one of another format.
        """
        if os.path.lexists(self.directory / _INDEX):
            return self.parse(self.index_bytes())
        others = sorted(name for name in self.names() or () if name != _PARTS and not name.startswith("."))
        if others:
            raise StorageError(f"{self.directory} holds other files ({', '.join(others[:3])}). Save into a new folder.")
        return None

    def names(self) -> list[str] | None:
        """Return the names in the folder, None if there is none; StorageError if it cannot be looked into."""
        try:
            return os.listdir(self.directory)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:  # ValueError: a name that no folder can have
            raise StorageError(f"Expected a model's folder at {self.directory}; {_reason(error)}.") from error

    def parse(self, data: bytes) -> dict[str, Any]:
        """Return the index in a file's bytes; errors as in ``index``."""
        path = self.directory / _INDEX
        index = parse_json(path, data)
        if not (isinstance(index.get("tasks"), list) and "net" in index and "format_version" in index):
            raise StorageError(f"{path} is not a lasem model's. Save into a new folder.")
        version = index["format_version"]
        if version != FORMAT_VERSION:
            older = version in range(1, FORMAT_VERSION)
            again = "Learn its tasks again with this lasem, or use the one that saved it."
            advice = again if older else "Install a newer lasem."
            raise StorageError(
                f"{self.directory} has format version {version}; this lasem reads version {FORMAT_VERSION}. {advice}"
            )
        rest = {key: value for key, value in index.items() if key != _CHECKSUM}
        if index.get(_CHECKSUM) != _sum(rest):
            raise StorageError(f"{path} has changed since it was saved (its checksum differs); the model is damaged.")
        if isinstance(rest.get("training"), dict):
            rest["training"] = EARLIER | rest["training"]
        return rest

    def read(self, action: Callable[[bytes], Result]) -> Result:
        """Read a model by its index's bytes, and again if another process has replaced the index meanwhile."""
        for tries_left in reversed(range(_MAX_TRIES)):
            data = self.index_bytes()
            try:
                return action(data)
            except StorageError:
                if not tries_left or self.index_bytes() == data:
                    raise
        raise AssertionError("not reached")

    def tensors(self, part: StoredPart, device: torch.device, *, max_bytes: float = math.inf) -> dict[str, Tensor]:
        """Return the tensors of a part, by name in alphabetical order.

        Args:
            part: names the file.
            device: where the tensors are wanted.
            max_bytes: of the file, where the network's sizes limit it; a larger one is not read.

        Raises:
            StorageError: if the file is not there, has changed, or is damaged.
        """
        path = self._place(part.checksum)
        data = read_bytes(path, part.checksum, inside=self.directory, max_bytes=min(part.num_bytes, max_bytes))
        try:
            # a copy starts where the allocator puts it: sums over unaligned memory, as in the file, differ in the last
            # bit; sorted, because safetensors gives the tensors in another order each time
            return {name: t.to(device, copy=True) for name, t in sorted(load_tensors(data).items())}
        except SafetensorError as error:
            raise StorageError(f"Expected tensors in {path}; got a damaged file ({error}).") from error
        except (KeyError, AttributeError, TypeError, RuntimeError) as error:  # a type of number that torch has not
            raise StorageError(f"Expected tensors that torch knows in {path}; got others ({error}).") from error

    def put(self, tensors: Mapping[str, Tensor]) -> StoredPart:
        """Write tensors unless the folder has them; StorageError if that fails, or would be outside the folder."""
        part, data = as_part(tensors)
        if not self.has(part):
            check_inside(self._parts, self.directory)
            write_file(self._place(part.checksum), data)
        return part

    def has(self, part: StoredPart) -> bool:
        """Return whether the folder has a file of a part's name and size."""
        try:
            about = os.lstat(self._place(part.checksum))
        except OSError:
            return False
        return stat.S_ISREG(about.st_mode) and about.st_size == part.num_bytes

    def commit(self, index: Mapping[str, Any]) -> None:
        """Make an index the folder's, then remove the parts that it does not name.

        Args:
            index: plain values; the format and a checksum are added. Parts that it names have been ``put``.

        Raises:
            StorageError: if it cannot be written; the model is as before.
        """
        write_file(self.directory / _INDEX, sealed({"format_version": FORMAT_VERSION, **index}))
        self.sweep()

    @contextmanager
    def locked(self, wait: float) -> Iterator[None]:
        """Hold the folder, which is made if it is not there.

        StorageError if another process still holds it after ``wait`` seconds, or it cannot be written.
        """
        path = self.directory / _LOCK
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(path) and not (stat.S_ISREG(os.lstat(path).st_mode) and os.lstat(path).st_nlink == 1):
                raise StorageError(f"Expected a lock at {path}, a file of its own; got something else. Remove it.")
            lock = FileLock(path, timeout=max(wait, 0))
            lock.acquire()
        except Timeout:
            waited = f" for {wait:g} seconds" if wait > 0 else ""
            raise StorageError(
                f"Another process is changing the model in {self.directory}{waited}. Try again when it has ended, or "
                f"wait for it with --wait SECONDS."
            ) from None
        except (OSError, ValueError) as error:
            raise StorageError(f"Cannot write to {self.directory}: {_reason(error)}. Nothing was changed.") from error
        self._held = _identity(self.directory)
        try:
            yield
        except BaseException:
            self.check_held()
            raise
        finally:
            lock.release()

    def check_held(self) -> None:
        """Raise MovedError if the folder that is held is not at its place any more; so nothing is written elsewhere."""
        if _identity(self.directory) != self._held:
            raise MovedError(
                f"The folder {self.directory} was moved or removed in the meantime; nothing more was written. Where it "
                f"is now, it has the model as it was, and lasem learn FOLDER --resume goes on."
            )

    def sweep(self) -> None:
        """Remove parts that the index does not name, and files that a process was writing when it was killed.

        What cannot be removed does no harm; the next change tries again.
        """
        with suppress(OSError, StorageError):
            named = set(re.findall("[0-9a-f]{64}", self.index_bytes().decode()))
            for file in () if self._parts.is_symlink() else self._parts.iterdir():
                if _PART_NAME.fullmatch(file.name) and file.stem not in named:
                    file.unlink(missing_ok=True)
        for place in (self.directory, self._parts, self.directory / LEARNING):
            for left in () if place.is_symlink() and place != self.directory else place.glob(".*.*.tmp"):
                with suppress(OSError):
                    left.unlink()

    def num_bytes(self) -> int:
        """Return the size of the index and of all parts; other processes may remove some meanwhile."""
        total = 0
        for file in (self.directory / _INDEX, *self._parts.glob("*")):
            with suppress(OSError):
                total += os.lstat(file).st_size
        return total

    def _place(self, sum_of: str) -> Path:
        return self._parts / f"{sum_of}.safetensors"


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a folder from others; None if there is none."""
    try:
        about = os.stat(path)
    except OSError:
        return None
    return about.st_dev, about.st_ino


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def sealed(index: Mapping[str, Any]) -> str:
    """Return an index as JSON that carries its own checksum."""
    return json.dumps({**index, _CHECKSUM: _sum(index)}, indent=1) + "\n"


def part_to_plain(part: StoredPart) -> dict[str, Any]:
    """Return a part as the index has it."""
    return {_CHECKSUM: part.checksum, "bytes": part.num_bytes, "numbers": part.num_parameters}


def part_from_plain(entry: Any) -> StoredPart:
    """Return the part of an index's entry; StorageError if it is none."""
    if isinstance(entry, dict):
        sum_of, size, numbers = (entry.get(key) for key in (_CHECKSUM, "bytes", "numbers"))
        known = isinstance(sum_of, str) and re.fullmatch("[0-9a-f]{64}", sum_of)
        if known and type(size) is int and type(numbers) is int and min(size, numbers) >= 0:
            return StoredPart(str(sum_of), size, numbers)
    raise StorageError(f"Expected checksum, bytes and numbers of a part; got {str(entry)[:80]}. The model is damaged.")


def as_part(tensors: Mapping[str, Tensor]) -> tuple[StoredPart, bytes]:
    """Return the part that tensors are, and its file's bytes."""
    data = to_bytes(tensors)
    return StoredPart(checksum(data), len(data), count(tensors)), data


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Return tensors as safetensors' bytes; the same tensors give the same bytes."""
    return save_tensors({name: t.detach().cpu().contiguous() for name, t in tensors.items()})


@contextmanager
def as_storage_error(what: str) -> Iterator[None]:
    """Turn what unexpected content of a file leads to into a StorageError: ``what`` and the reason."""
    try:
        yield
    except StorageError:
        raise
    except (LasemError, LookupError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        raise StorageError(f"{what}: {error} ({type(error).__name__}).") from error


def _sum(index: Mapping[str, Any]) -> str:
    return checksum(json.dumps(index, sort_keys=True).encode())
