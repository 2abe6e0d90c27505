"""Earlier versions of shared knowledge on disk, a file each: written once, read when a task that uses one is asked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lasem.errors import StorageError
from lasem.files import checksum, write_file
from lasem.learner.model_files import check_inside, read_tensors, remove_files, to_bytes
from lasem.learner.shared import SharedKnowledge
from lasem.learner.shelf import StoredVersion
from lasem.learner.task_files import Shapes, check_shapes, count, most_bytes
from lasem.training import part_of

FOLDER = "versions"
Entries = dict[str, str]
"""In a model's index: the checksum of the file of each version that is not a layer's latest, by ``LAYER@VERSION``."""

_KEY = re.compile(r"(\d{1,6})@(\d{1,9})")
_FILE = re.compile(r"layer-\d{1,6}@\d{1,9}-[0-9a-f]{16}\.safetensors")


def write_versions(directory: Path, shared: SharedKnowledge, known: Mapping[str, Any]) -> Entries:
    """Write every version that is not a layer's latest, unless the folder has it.

    Args:
        directory: the model's folder.
        shared: what is shared; learns which files hold what.
        known: the entries of the model that is there.

    Raises:
        StorageError: if that fails, or would be outside the folder.
    """
    entries: Entries = {}
    for layer, shelf in enumerate(shared.layers):
        for number in shelf:
            if number == shared.latest_version(layer):
                continue
            key, sum_of = f"{layer}@{number}", shelf.checksum(number)
            if sum_of is None or known.get(key) != sum_of:
                data = to_bytes({f"layer.{key}.{name}": value for name, value in shelf[number].items()})
                sum_of = checksum(data)
                check_inside(directory / FOLDER, directory)
                write_file(_place(directory, key, sum_of), data)
                shelf.saved_as(number, sum_of)
            entries[key] = sum_of
    return entries


def remove_versions(directory: Path, entries: Entries) -> None:
    """Remove files of versions that are not among the entries."""
    folder = directory / FOLDER
    if folder.is_symlink() or not folder.is_dir():
        return
    remove_files(folder, _FILE, {_place(directory, key, sum_of).name for key, sum_of in entries.items()})
    if not any(folder.iterdir()):
        folder.rmdir()


def stored_versions(
    directory: Path, entries: Any, shapes: list[Shapes], device: torch.device
) -> list[dict[int, StoredVersion]]:
    """For each layer the versions in files, which are read when they are asked for.

    Raises:
        StorageError: if the entries are not what ``write_versions`` gave.
    """
    found: list[dict[int, StoredVersion]] = [{} for _ in shapes]
    for key, sum_of in dict(entries).items():
        match = _KEY.fullmatch(key)
        known = isinstance(sum_of, str) and re.fullmatch("[0-9a-f]{64}", sum_of)
        if match is None or not known or int(match[1]) >= len(shapes):
            raise StorageError(f"Expected versions such as 0@1 of {len(shapes)} layers in {directory}; got {key!r}.")
        layer = int(match[1])
        read = partial(_read, directory, key, sum_of, shapes[layer], device)
        found[layer][int(match[2])] = StoredVersion(sum_of, count(shapes[layer]), read)
    return found


def _read(directory: Path, key: str, sum_of: str, shapes: Shapes, device: torch.device) -> dict[str, Tensor]:
    place = _place(directory, key, sum_of)
    flat = read_tensors(place, sum_of, device, inside=directory, most_bytes=most_bytes(shapes))
    check_shapes(flat, {f"layer.{key}.{name}": shape for name, shape in shapes.items()}, str(place))
    return part_of(flat, f"layer.{key}")


def _place(directory: Path, key: str, sum_of: str) -> Path:
    return directory / FOLDER / f"layer-{key}-{sum_of[:16]}.safetensors"
