"""A learner on disk: safetensors and JSON, never pickle.

``config.json`` is written last and names what belongs to the model with checksums, so the folder holds the model before
or after a save, never one between::

    config.json                         settings, order of the tasks, checksums
    shared-N.safetensors                shared knowledge after N tasks
    tasks/NAME/task.json                configuration, classes, preprocessing, metrics
    tasks/NAME/weights.safetensors      what the task owns
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from lasem.errors import LasemError, StorageError
from lasem.files import checksum, write_file
from lasem.learner.learned import LearnedTask
from lasem.learner.model_files import FORMAT_VERSION, check_version, read_json, read_tensors, task_name, to_bytes
from lasem.nets import Net
from lasem.search import SEARCHES, AbstractSelection
from lasem.settings import from_plain, to_plain
from lasem.sharing import SHARINGS, AbstractSharing
from lasem.space import Configuration
from lasem.training import TrainingConfig, part_of


@final
@dataclass(frozen=True)
class StoredLearner:
    """What a model's folder holds."""

    net: Net
    sharing: AbstractSharing
    search: AbstractSelection | None
    training: TrainingConfig
    seed: int
    shared: tuple[dict[str, Tensor], ...]
    tasks: tuple[LearnedTask, ...]


def save(
    directory: Path,
    net: Net,
    settings: dict[str, Any],
    seed: int,
    shared: tuple[dict[str, Tensor], ...],
    tasks: tuple[LearnedTask, ...],
) -> None:
    """Write a model; a folder that holds an earlier state of the same model gets what is new.

    Raises:
        StorageError: if the folder holds another model or other files, or cannot be written.
    """
    files = {task.name: _task_files(task) for task in tasks}
    entries = [{"name": name, "checksum": checksum(description)} for name, (description, _) in files.items()]
    stored = stored_config(directory)
    known = [] if stored is None else stored["tasks"]
    if stored is not None and (stored["net"] != to_plain(net) or known != entries[: len(known)]):
        raise StorageError(f"{directory} holds another model. Save into a new folder, or delete that one first.")
    for name, (description, weights) in list(files.items())[len(known) :]:
        write_file(directory / "tasks" / name / "weights.safetensors", weights)
        write_file(directory / "tasks" / name / "task.json", description)
    shared_bytes = to_bytes({f"layer.{i}.{k}": v for i, layer in enumerate(shared) for k, v in layer.items()})
    shared_name = f"shared-{len(tasks)}.safetensors"
    write_file(directory / shared_name, shared_bytes)
    config = {
        "format_version": FORMAT_VERSION,
        "seed": seed,
        "net": to_plain(net),
        **{key: {"name": getattr(value, "name", None), **to_plain(value)} for key, value in settings.items()},
        "shared": {"file": shared_name, "checksum": checksum(shared_bytes)},
        "tasks": entries,
    }
    write_file(directory / "config.json", json.dumps(config, indent=1) + "\n")
    for old in directory.glob("shared-*.safetensors"):
        if old.name != shared_name:
            old.unlink(missing_ok=True)


def load(
    directory: Path,
    device: torch.device,
    *,
    sharing: AbstractSharing | None,
    search: AbstractSelection | None,
    training: TrainingConfig | None,
) -> StoredLearner:
    """Read what ``save`` wrote; what is given replaces what is stored.

    Raises:
        StorageError: if it is not there, damaged, or of a later format.
    """
    config = read_json(directory / "config.json")
    check_version(directory, config)
    try:
        net = from_plain(Net, config["net"], "net")
        seed = int(config["seed"])
        if seed < 0:
            raise StorageError(f"Expected a seed of at least 0 in {directory / 'config.json'}; got {seed}.")
        sharing = sharing or _named(SHARINGS, config["sharing"], "sharing")
        if search is None:
            search = _named(SEARCHES, config["search"], "search")
            for index in (0, 1):
                search.space(net.depth, index)
        training = training or from_plain(TrainingConfig, _without_name(config["training"]), "training")
        tasks = tuple(_load_task(directory, entry, net, sharing, device) for entry in config["tasks"])
        expected = f"shared-{len(tasks)}.safetensors"
        if config["shared"]["file"] != expected:
            raise StorageError(f"Expected the shared knowledge in {expected}; got '{config['shared']['file']}'.")
        flat = read_tensors(directory / expected, config["shared"]["checksum"], device)
        shared = tuple(part_of(flat, f"layer.{i}") for i in range(net.depth))
        for i, (block, layer) in enumerate(zip(net.blocks, shared, strict=True)):
            if layer or any(task.configuration[i] for task in tasks):
                _check_shapes(layer, sharing.shared_shapes(block), f"layer {i} of {expected}")
        return StoredLearner(net, sharing, search, training, seed, shared, tasks)
    except StorageError:
        raise
    except (LasemError, KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        what = f"{error} ({type(error).__name__})"
        raise StorageError(f"{directory} holds no model that can be read: {what}.") from error


def _named(known: dict[str, type[Any]], entry: dict[str, Any], what: str) -> Any:
    name = entry["name"]
    if name not in known:
        raise StorageError(
            f"The model was saved with the {what} '{name}', which is not lasem's own: pass {what}=... to load."
        )
    return from_plain(known[name], _without_name(entry), what)


def _without_name(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "name"}


def _task_files(task: LearnedTask) -> tuple[bytes, bytes]:
    """task.json and weights.safetensors."""
    weights = to_bytes(task.named())
    description = {
        "name": task.name,
        "classes": list(task.classes),
        "configuration": str(task.configuration),
        "preprocessing": {"mean": task.mean.tolist(), "std": task.std.tolist()},
        "num_epochs": task.num_epochs,
        "valid_accuracy": task.valid_accuracy,
        "peak_accuracy": task.peak_accuracy,
        "weights": checksum(weights),
    }
    return (json.dumps(description, indent=1, ensure_ascii=False) + "\n").encode(), weights


def _load_task(
    directory: Path, entry: dict[str, Any], net: Net, sharing: AbstractSharing, device: torch.device
) -> LearnedTask:
    name = task_name(entry)
    folder = directory / "tasks" / name
    description = read_json(folder / "task.json", entry["checksum"])
    flat = read_tensors(folder / "weights.safetensors", description["weights"], device)
    task = LearnedTask(
        name=name,
        classes=tuple(str(c) for c in description["classes"]),
        configuration=Configuration.parse(description["configuration"]),
        layers=tuple(part_of(flat, f"layer.{i}") for i in range(net.depth)),
        head=part_of(flat, "head"),
        mean=torch.tensor(description["preprocessing"]["mean"], dtype=torch.float32, device=device),
        std=torch.tensor(description["preprocessing"]["std"], dtype=torch.float32, device=device),
        num_epochs=int(description["num_epochs"]),
        valid_accuracy=float(description["valid_accuracy"]),
        peak_accuracy=float(description["peak_accuracy"]),
    )
    if len(task.configuration) != net.depth:
        raise StorageError(f"Task '{name}' has {len(task.configuration)} layers; the network has {net.depth}.")
    for i, (block, layer) in enumerate(zip(net.blocks, task.layers, strict=True)):
        shapes = sharing.task_shapes(block) if task.configuration[i] else block.shapes
        _check_shapes(layer, shapes, f"layer {i} of task '{name}'")
    _check_shapes(task.head, net.head.shapes(len(task.classes)), f"the head of task '{name}'")
    if not task.mean.shape == task.std.shape == (net.image_shape[0],):
        raise StorageError(f"Task '{name}' needs one mean and one std for each of {net.image_shape[0]} channels.")
    return task


def stored_config(directory: Path) -> dict[str, Any] | None:
    """Settings and tasks of the model that is there; None where there is none yet."""
    if (directory / "config.json").exists():
        config = read_json(directory / "config.json")
        if not (isinstance(config.get("tasks"), list) and "net" in config and "format_version" in config):
            raise StorageError(f"{directory / 'config.json'} is not a lasem model's. Save into a new folder.")
        check_version(directory, config)
        return config
    strange = [p.name for p in directory.iterdir()] if directory.is_dir() else []
    strange = [n for n in strange if n != "tasks" and not n.startswith((".", "shared-"))]
    if strange:
        raise StorageError(f"{directory} holds other files ({', '.join(sorted(strange)[:3])}). Save into a new folder.")
    return None


def _check_shapes(tensors: dict[str, Tensor], shapes: dict[str, tuple[int, ...]], what: str) -> None:
    found = {name: tuple(t.shape) for name, t in tensors.items()}
    if found != shapes:
        raise StorageError(f"Expected tensors {shapes} in {what}; got {found}.")
