"""A baseline's model on disk: safetensors and JSON, never pickle.

``config.json`` is written last and names every file with its checksum, so the folder holds the model before or after a
save, never one between. Files of tensors are named by their content: what has not changed is not written again. How
large they may be only the method knows, so their sizes are in the index too, and are looked at before they are read::

    config.json                           settings, order of the tasks, files, their sizes and checksums
    shared-SUM.safetensors                what several tasks answer with
    memory-SUM.safetensors                what only the learning of later tasks needs
    tasks/NAME/task.json                  classes, preprocessing, metrics
    tasks/NAME/weights-SUM.safetensors    what the task alone answers with
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from lasem.errors import StorageError
from lasem.files import checksum, write_file
from lasem.learner.computable import check_computable
from lasem.learner.model_files import (
    FORMAT_VERSION,
    check_entry,
    check_inside,
    damage_told,
    read_json,
    read_tensors,
    remove_files,
    sealed,
    task_name,
    to_bytes,
)
from lasem.learner.storage import stored_choice, stored_config, stored_seed, undisturbed
from lasem.learner.task_files import told_of
from lasem.methods.info import TaskInfo
from lasem.methods.method import AbstractMethod, Model
from lasem.nets import Net
from lasem.settings import from_plain, to_named, to_plain
from lasem.training import Named, TrainingConfig

_FILE = re.compile(r"(shared|memory|weights)-[0-9a-f]{16}\.safetensors")


@final
@dataclass(frozen=True)
class StoredBaseline:
    """What a model's folder holds."""

    net: Net
    method: AbstractMethod
    training: TrainingConfig
    seed: int
    model: Model
    tasks: tuple[TaskInfo, ...]


def save(
    directory: Path,
    net: Net,
    method: AbstractMethod,
    training: TrainingConfig,
    seed: int,
    model: Model,
    tasks: tuple[TaskInfo, ...],
) -> None:
    """Write a model; a folder that holds an earlier state of the same model gets what is new.

    Raises:
        StorageError: if the folder holds another model or other files, or cannot be written.
    """
    from lasem.methods import METHODS  # they import what is above them

    stored = stored_config(directory)
    descriptions = {task.name: _description(task) for task in tasks}
    sums = {name: checksum(text) for name, text in descriptions.items()}
    before = [(entry["name"], entry["checksum"]) for entry in stored["tasks"]] if stored else []
    if stored and (
        stored["net"] != to_plain(net) or "method" not in stored or before != list(sums.items())[: len(before)]
    ):
        raise StorageError(f"{directory} holds another model. Save into a new folder, or delete that one first.")
    entries: list[dict[str, Any]] = []
    for number, (name, text) in enumerate(descriptions.items()):
        folder = directory / "tasks" / name
        check_inside(folder, directory)
        weights = _write_tensors(folder, "weights", model.own[name])
        if number >= len(before):
            write_file(folder / "task.json", text)
        entries.append({"name": name, "checksum": sums[name], "weights": weights})
    parts = {part: _write_tensors(directory, part, getattr(model, part)) for part in ("shared", "memory")}
    config = {
        "format_version": FORMAT_VERSION,
        "seed": seed,
        "net": to_plain(net),
        "method": to_named(method, METHODS),
        "training": to_plain(training),
        **parts,
        "tasks": entries,
    }
    write_file(directory / "config.json", sealed(config))
    with suppress(OSError):  # what cannot be removed does no harm; the next save tries again
        remove_files(directory, _FILE, {entry["file"] for entry in parts.values()})
        for entry in entries:
            remove_files(directory / "tasks" / entry["name"], _FILE, {entry["weights"]["file"]})


def load(
    directory: Path, device: torch.device, *, method: AbstractMethod | None, training: TrainingConfig | None
) -> StoredBaseline:
    """Read what ``save`` wrote; what is given replaces what is stored.

    Raises:
        StorageError: if it is not there, damaged, or of a later format.
    """
    return undisturbed(directory, lambda config: _load(directory, config, device, method, training))


def _load(
    directory: Path,
    config: dict[str, Any],
    device: torch.device,
    method: AbstractMethod | None,
    training: TrainingConfig | None,
) -> StoredBaseline:
    from lasem.methods import METHODS  # they import what is above them

    if "method" not in config:
        raise StorageError(f"{directory} holds a model of sharing and search, not a baseline's: use Learner.load.")
    with damage_told(f"{directory} holds no model that can be read"):
        net = from_plain(Net, config["net"], "net")
        check_computable(net)
        if method is None:
            method = stored_choice(METHODS, config["method"], "method")
        training = training or from_plain(TrainingConfig, config["training"], "training")
        seed = stored_seed(directory, config)
        method.check(net, training)
        tasks, own = [], {}
        for stored in config["tasks"]:
            info = _read_task(directory, stored, net, device)
            if info.name in own:
                raise StorageError(f"Expected each task once in {directory / 'config.json'}; got '{info.name}' twice.")
            tasks.append(info)
            own[info.name] = _read_part(directory, directory / "tasks" / info.name, stored["weights"], device)
        shared, memory = (_read_part(directory, directory, config[part], device) for part in ("shared", "memory"))
        model = Model(shared, own, memory)
        for info in tasks:
            _try(method, net, model, info, device)
        return StoredBaseline(net, method, training, seed, model, tuple(tasks))


def _try(method: AbstractMethod, net: Net, model: Model, info: TaskInfo, device: torch.device) -> None:
    """Let a task answer once: tensors that do not fit the network are met here, not when a person asks."""
    try:
        with torch.no_grad():
            shape = method.logits(net, model, info.name, torch.zeros(1, *net.image_shape, device=device)).shape
    except (RuntimeError, LookupError, TypeError, ValueError) as error:
        raise StorageError(f"The tensors of task '{info.name}' do not fit the network: {error}.") from error
    if tuple(shape) != (1, len(info.classes)):
        raise StorageError(f"Task '{info.name}' has {len(info.classes)} classes; its network answers with {shape[-1]}.")


def _description(task: TaskInfo) -> bytes:
    entry = {
        "name": task.name,
        "classes": list(task.classes),
        "preprocessing": {"mean": task.mean.tolist(), "std": task.std.tolist()},
        "num_epochs": task.num_epochs,
        "valid_accuracy": task.valid_accuracy,
        "peak_accuracy": task.peak_accuracy,
    }
    return (json.dumps(entry, indent=1, ensure_ascii=False) + "\n").encode()


def _read_task(directory: Path, entry: dict[str, Any], net: Net, device: torch.device) -> TaskInfo:
    check_entry(entry)
    name = task_name(entry)
    stored = read_json(directory / "tasks" / name / "task.json", entry["checksum"], inside=directory)
    return TaskInfo(**told_of(stored, name, net, device))


def _write_tensors(folder: Path, part: str, tensors: Named) -> dict[str, Any]:
    """Write a file of tensors unless it is there; what config.json says of it."""
    data = to_bytes(tensors)
    file = f"{part}-{checksum(data)[:16]}.safetensors"
    place = folder / file
    if not place.exists() or place.stat().st_size != len(data):
        write_file(place, data)
    return {"file": file, "checksum": checksum(data), "bytes": len(data)}


def _read_part(directory: Path, folder: Path, entry: dict[str, Any], device: torch.device) -> dict[str, Tensor]:
    if not _FILE.fullmatch(str(entry["file"])):
        raise StorageError(f"Expected the name of a file of tensors in {folder}; got {entry['file']!r}.")
    most_bytes = entry.get("bytes")  # models that were saved before do not say
    return read_tensors(folder / entry["file"], entry["checksum"], device, inside=directory, most_bytes=most_bytes)
