"""The files of a saved model: tensors and JSON, checked as they are read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from lasem.errors import StorageError
from lasem.files import checksum

FORMAT_VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")


def check_version(directory: Path, config: Mapping[str, Any]) -> None:
    """Raise StorageError if a model was saved in a later format."""
    version = config.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise StorageError(
            f"{directory} has format version {version}; this lasem reads up to {FORMAT_VERSION}. Install a newer lasem."
        )


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as safetensors' bytes; the same tensors give the same bytes."""
    return save_tensors({name: t.detach().cpu().contiguous() for name, t in tensors.items()})


def read_tensors(path: Path, expected: str, device: torch.device) -> dict[str, Tensor]:
    """Tensors of a file, by name in alphabetical order.

    Args:
        path: the file.
        expected: checksum of its bytes.
        device: where the tensors are wanted.

    Raises:
        StorageError: if it is not there, has changed, or is damaged.
    """
    try:
        # a copy starts where the allocator puts it: sums over unaligned memory, as in the file, differ in the last bit;
        # sorted, because safetensors gives the tensors in another order each time
        return {name: t.to(device, copy=True) for name, t in sorted(load_tensors(_read(path, expected)).items())}
    except SafetensorError as error:
        raise StorageError(f"Expected tensors in {path}; got a damaged file ({error}).") from error


def read_json(path: Path, expected: str | None = None) -> dict[str, Any]:
    """A file's JSON object; StorageError if there is none, or its checksum is another than expected."""
    try:
        entry = json.loads(_read(path, expected))
    except ValueError as error:
        raise StorageError(f"Expected JSON in {path}; got a damaged file ({error}).") from error
    if not isinstance(entry, dict):
        raise StorageError(f"Expected a JSON object in {path}; got {type(entry).__name__}.")
    return entry


def _read(path: Path, expected: str | None) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StorageError(f"Expected a saved model with {path}; {error.strerror}.") from error
    if expected is not None and checksum(data) != expected:
        raise StorageError(f"{path} has changed since it was saved (its checksum differs); the model is damaged.")
    return data


def task_name(entry: Mapping[str, Any]) -> str:
    """The name in a task's entry of ``config.json``; StorageError unless it can name a folder beside that file."""
    name = entry["name"]
    if not isinstance(name, str) or not _NAME.fullmatch(name) or set(name) == {"."}:
        raise StorageError(f"Expected the name of a task of letters, digits, '.', '_' and '-'; got {name!r}.")
    return name
