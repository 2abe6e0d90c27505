"""The state of the task that is being learned, after its last finished epoch.

Two files in a folder of their own: the tensors, and ``checkpoint.json``, which names them and is written last. It is
not waited for the disk: a process that is killed loses nothing, and after a power cut a checkpoint that did not reach
the disk whole is passed over, as is one of an earlier format; the task under way then starts over, to the same results.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from lasem.files import checksum, write_file
from lasem.training.plan import TrainingState

_INDEX = "checkpoint.json"
_FORMAT = 2


@final
@dataclass(frozen=True)
class Checkpoint:
    """Where learning goes on inside a task."""

    num_learned: int
    """Tasks learned before this one."""
    num_epochs: int
    """Epochs of this one that are finished."""
    state: TrainingState


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint in a folder.

    Raises:
        StorageError: if it cannot be written; the one before is still there.
    """
    tensors = save_tensors({name: t.detach().cpu().contiguous() for name, t in checkpoint.state.tensors.items()})
    name = f"state-{checkpoint.num_learned}-{checkpoint.num_epochs}.safetensors"
    index: dict[str, Any] = {
        "format": _FORMAT,
        "num_learned": checkpoint.num_learned,
        "num_epochs": checkpoint.num_epochs,
        "tensors": {"file": name, "checksum": checksum(tensors)},
        "state": dict(checkpoint.state.plain),
    }
    write_file(folder / name, tensors, durable=False)
    write_file(folder / _INDEX, json.dumps(index) + "\n", durable=False)
    for old in folder.glob("state-*.safetensors"):
        if old.name != name:
            old.unlink(missing_ok=True)


def load(folder: Path) -> Checkpoint | None:
    """Return the checkpoint in a folder; None if there is none that is whole and of this format."""
    try:
        index = json.loads((folder / _INDEX).read_bytes())
        if index["format"] != _FORMAT:
            return None
        data = (folder / Path(index["tensors"]["file"]).name).read_bytes()
        if checksum(data) != index["tensors"]["checksum"]:
            return None
        state = TrainingState(load_tensors(data), dict(index["state"]))
        return Checkpoint(int(index["num_learned"]), int(index["num_epochs"]), state)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None


def remove(folder: Path) -> None:
    """Remove what finished learning no longer needs."""
    shutil.rmtree(folder, ignore_errors=True)
