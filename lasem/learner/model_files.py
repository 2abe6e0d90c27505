"""The files of a saved model: tensors and JSON, checked as they are read.

A model's folder may come from a stranger. Nothing in it is executed, no name and no symbolic link in it leads out of
it, and a file's size is looked at before its content.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from lasem.data.task import check_task_name
from lasem.errors import DataError, LasemError, StorageError
from lasem.files import checksum

FORMAT_VERSION = 2
MOST_JSON_BYTES = 16 * 2**20
"""More than the index of 50,000 tasks needs."""

_CHECKSUM = "checksum"


def check_version(directory: Path, config: Mapping[str, Any]) -> None:
    """Raise StorageError if a model was saved in a later format."""
    version = config.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise StorageError(
            f"{directory} has format version {version}; this lasem reads up to {FORMAT_VERSION}. Install a newer lasem."
        )


def sealed(config: Mapping[str, Any]) -> str:
    """A model's index as JSON that carries its own checksum."""
    return json.dumps({**config, _CHECKSUM: _sum(config)}, indent=1) + "\n"


def check_seal(path: Path, config: Mapping[str, Any]) -> None:
    """Raise StorageError if an index is not as it was saved; older ones carry no checksum and are taken as they are."""
    rest = {key: value for key, value in config.items() if key != _CHECKSUM}
    if _CHECKSUM in config and config[_CHECKSUM] != _sum(rest):
        raise StorageError(f"{path} has changed since it was saved (its checksum differs); the model is damaged.")


def _sum(config: Mapping[str, Any]) -> str:
    return checksum(json.dumps(config, sort_keys=True).encode())


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as safetensors' bytes; the same tensors give the same bytes."""
    return save_tensors({name: t.detach().cpu().contiguous() for name, t in tensors.items()})


def read_tensors(
    path: Path, expected: str, device: torch.device, *, inside: Path | None = None, most_bytes: int | None = None
) -> dict[str, Tensor]:
    """Tensors of a file, by name in alphabetical order.

    Args:
        path: the file.
        expected: checksum of its bytes.
        device: where the tensors are wanted.
        inside: the folder that the file must be in when links are followed.
        most_bytes: of the file; a larger one is not read.

    Raises:
        StorageError: if it is not there, has changed, or is damaged.
    """
    try:
        # a copy starts where the allocator puts it: sums over unaligned memory, as in the file, differ in the last bit;
        # sorted, because safetensors gives the tensors in another order each time
        found = load_tensors(read_bytes(path, expected, inside=inside, most_bytes=most_bytes))
        return {name: t.to(device, copy=True) for name, t in sorted(found.items())}
    except SafetensorError as error:
        raise StorageError(f"Expected tensors in {path}; got a damaged file ({error}).") from error
    except (KeyError, AttributeError, TypeError, RuntimeError) as error:  # a type of number that torch has not
        raise StorageError(f"Expected tensors that torch knows in {path}; got others ({error}).") from error


def read_json(path: Path, expected: str | None = None, *, inside: Path | None = None) -> dict[str, Any]:
    """A file's JSON object; StorageError if there is none, or its checksum is another than expected."""
    return parse_json(path, read_bytes(path, expected, inside=inside, most_bytes=MOST_JSON_BYTES))


def parse_json(path: Path, data: bytes) -> dict[str, Any]:
    """The JSON object in a file's bytes; StorageError if there is none."""
    try:
        entry = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise StorageError(f"Expected JSON in {path}; got a damaged file ({error}).") from error
    if not isinstance(entry, dict):
        raise StorageError(f"Expected a JSON object in {path}; got {type(entry).__name__}.")
    return entry


def read_bytes(
    path: Path, expected: str | None = None, *, inside: Path | None = None, most_bytes: int | None = None
) -> bytes:
    """A regular file's bytes; arguments and errors as in ``read_tensors``."""
    if inside is not None:
        check_inside(path, inside)
    try:
        # without waiting for what is no file: a pipe would never end
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise StorageError(f"Expected a file at {path}; got something else. The model is damaged.")
            if most_bytes is not None and about.st_size > most_bytes:
                raise StorageError(
                    f"Expected at most {most_bytes:,} bytes in {path}, by the sizes of the network; it has "
                    f"{about.st_size:,}. The model is damaged."
                )
            data = file.read()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise StorageError(
            f"Expected a saved model with {path}; {getattr(error, 'strerror', None) or error}."
        ) from error
    if expected is not None and checksum(data) != expected:
        raise StorageError(f"{path} has changed since it was saved (its checksum differs); the model is damaged.")
    return data


def check_inside(path: Path, folder: Path) -> None:
    """Raise StorageError if a path leads out of a folder once symbolic links are followed."""
    try:
        leads_out = not path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # links in a circle
        leads_out = True
    if leads_out:
        raise StorageError(f"Expected {path} inside {folder}; a symbolic link leads out of it. Remove the link.")


@contextmanager
def damage_told(what: str) -> Iterator[None]:
    """Turn what unexpected content of a file leads to into a StorageError, ``what`` and the reason."""
    try:
        yield
    except StorageError:
        raise
    except (LasemError, LookupError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        raise StorageError(f"{what}: {error} ({type(error).__name__}).") from error


def remove_files(folder: Path, names: re.Pattern[str], kept: Collection[str]) -> None:
    """Remove a folder's files with such names but those that are kept."""
    for file in folder.iterdir():
        if names.fullmatch(file.name) and file.name not in kept:
            file.unlink(missing_ok=True)


def check_entry(entry: Any) -> None:
    """Raise StorageError unless an entry of a model's tasks has a name and a checksum."""
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("name", _CHECKSUM)):
        raise StorageError(f"Expected a name and a checksum of each task; got {str(entry)[:60]}. The model is damaged.")


def task_name(entry: Mapping[str, Any]) -> str:
    """The name in a task's entry of ``config.json``; StorageError unless it can name a folder beside that file."""
    name: str = entry["name"]
    try:
        check_task_name(name)
    except (DataError, TypeError) as error:
        raise StorageError(
            f"Expected the name of a task of letters, digits, '.', '_' and '-'; got {name!r}."
        ) from error
    return name
