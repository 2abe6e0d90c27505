"""One task on disk: a description and its tensors, both named by their content, so that no file is ever changed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from lasem.errors import StorageError
from lasem.files import checksum, write_file
from lasem.learner.learned import LearnedTask
from lasem.learner.model_files import (
    check_entry,
    check_inside,
    damage_told,
    read_json,
    read_tensors,
    remove_files,
    task_name,
    to_bytes,
)
from lasem.learner.tasks import Entry, TaskOutline
from lasem.nets import AbstractNet
from lasem.sharing import AbstractSharing
from lasem.space import Configuration
from lasem.training import part_of

Shapes = dict[str, tuple[int, ...]]

FILE = re.compile(r"(task(-[0-9a-f]{16})?\.json|weights(-[0-9a-f]{16})?\.safetensors)")
"""Files of a task; those of the first format are not named by their content."""

_SLACK = 2**20  # bytes of a file of tensors beside their numbers: names, shapes, alignment


@final
@dataclass(frozen=True)
class TaskFiles:
    """A task's files as they are written."""

    entry: Entry
    description: bytes
    weights: bytes

    @classmethod
    def of(cls, task: LearnedTask) -> TaskFiles:
        """The files of a task; equal tasks have equal files."""
        weights = to_bytes(task.named())
        description = {
            "name": task.name,
            "classes": list(task.classes),
            "configuration": str(task.configuration),
            "preprocessing": {"mean": task.mean.tolist(), "std": task.std.tolist()},
            "num_epochs": task.num_epochs,
            "valid_accuracy": task.valid_accuracy,
            "peak_accuracy": task.peak_accuracy,
            "num_images": list(task.num_images),
            "weights": checksum(weights),
        }
        text = (json.dumps(description, indent=1, ensure_ascii=False) + "\n").encode()
        entry = {
            "name": task.name,
            "file": f"task-{checksum(text)[:16]}.json",
            "checksum": checksum(text),
            **TaskOutline.of(task).to_plain(),
        }
        return cls(entry, text, weights)

    def write(self, directory: Path) -> None:
        """Write both; StorageError if that fails or would be outside the model's folder."""
        folder = directory / "tasks" / self.entry["name"]
        check_inside(folder, directory)
        write_file(folder / f"weights-{checksum(self.weights)[:16]}.safetensors", self.weights)
        write_file(folder / self.entry["file"], self.description)


def remove_others(directory: Path, name: str, entry: Entry | None) -> None:
    """Remove a task's files but those of an entry; all of them, and the task's folder, if there is none."""
    folder = directory / "tasks" / name
    if folder.is_symlink() or not folder.is_dir():
        return
    kept = set()
    if entry is not None:
        description = description_of(directory, entry)
        kept = {description["place"].name, _weights_file(description).name}
    remove_files(folder, FILE, kept)
    if not any(folder.iterdir()):
        folder.rmdir()


def description_of(directory: Path, entry: Entry) -> dict[str, Any]:
    """What a task's description says, as it was written; StorageError if it is damaged."""
    name, file = task_name(entry), entry.get("file", "task.json")
    if not isinstance(file, str) or not FILE.fullmatch(file):
        raise StorageError(f"Expected the name of a task's file; got {file!r} for task '{name}'. The model is damaged.")
    place = directory / "tasks" / name / file
    return {**read_json(place, entry["checksum"], inside=directory), "place": place}


def outline_of(directory: Path, entry: Entry, net: AbstractNet, sharing: AbstractSharing) -> TaskOutline:
    """What the index knows of a task; the first format's index knows less, so there the description is read."""
    check_entry(entry)
    name = task_name(entry)
    told = entry if "configuration" in entry else description_of(directory, entry)
    configuration = Configuration.parse(told["configuration"])
    if len(configuration) != net.depth:
        raise StorageError(f"Task '{name}' has {len(configuration)} layers; the network has {net.depth}.")
    if "num_parameters" in told:
        num_parameters = int(told["num_parameters"])
    else:
        num_parameters = count(_shapes(configuration, len(told["classes"]), net, sharing))
    versions = tuple(int(version) for version in told.get("versions", [0] * net.depth))
    if len(versions) != net.depth or min(versions) < 0:
        raise StorageError(f"Task '{name}' needs one version for each of {net.depth} layers; got {list(versions)}.")
    return TaskOutline(name, configuration, int(told["num_epochs"]), num_parameters, versions)


def read_task(
    directory: Path,
    entry: Entry,
    outline: TaskOutline,
    net: AbstractNet,
    sharing: AbstractSharing,
    device: torch.device,
) -> LearnedTask:
    """Read one task.

    Raises:
        StorageError: if it is not there, damaged, or does not fit the network.
    """
    with damage_told(f"Task '{outline.name}' in {directory} cannot be read"):
        description = description_of(directory, entry)
        told = told_of(description, outline.name, net, device)
        shapes = _shapes(outline.configuration, len(told["classes"]), net, sharing)
        flat = read_tensors(
            _weights_file(description),
            _weights_sum(description),
            device,
            inside=directory,
            most_bytes=most_bytes(shapes),
        )
        check_shapes(flat, shapes, f"task '{outline.name}'")
        if Configuration.parse(description["configuration"]) != outline.configuration:
            raise StorageError(
                f"Task '{outline.name}' has another configuration in its file than in the model's index."
            )
        return LearnedTask(
            **told,
            configuration=outline.configuration,
            layers=tuple(part_of(flat, f"layer.{i}") for i in range(net.depth)),
            versions=outline.versions,
            head=part_of(flat, "head"),
            num_images=_three(description.get("num_images", (0, 0, 0))),
        )


def told_of(description: Mapping[str, Any], name: str, net: AbstractNet, device: torch.device) -> dict[str, Any]:
    """What any learner's task says of itself, by the fields of ``LearnedTask``; StorageError if it does not fit."""
    mean, std = (
        torch.tensor(description["preprocessing"][key], dtype=torch.float32, device=device) for key in ("mean", "std")
    )
    if not mean.shape == std.shape == (net.image_shape[0],):
        raise StorageError(f"Task '{name}' needs one mean and one std for each of {net.image_shape[0]} channels.")
    return {
        "name": name,
        "classes": tuple(str(c) for c in description["classes"]),
        "mean": mean,
        "std": std,
        "num_epochs": int(description["num_epochs"]),
        "valid_accuracy": float(description["valid_accuracy"]),
        "peak_accuracy": float(description["peak_accuracy"]),
    }


def check_shapes(tensors: Mapping[str, Tensor], shapes: Shapes, what: str) -> None:
    """Raise StorageError unless there is just one tensor for each name, of just that shape."""
    found = {name: tuple(t.shape) for name, t in tensors.items()}
    if found != shapes:
        wrong = sorted(name for name in found.keys() | shapes.keys() if found.get(name) != shapes.get(name))
        told = "; ".join(f"{name}: {shapes.get(name, 'none')}, got {found.get(name, 'none')}" for name in wrong[:3])
        raise StorageError(f"Expected other tensors in {what}: {told}. The model is damaged.")


def most_bytes(shapes: Shapes) -> int:
    """More than a file of such tensors can have: 8 bytes a number, and what stands around them."""
    return 8 * count(shapes) + _SLACK + 1024 * len(shapes)


def count(shapes: Shapes) -> int:
    """Numbers in tensors of these shapes."""
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def _shapes(configuration: Configuration, num_classes: int, net: AbstractNet, sharing: AbstractSharing) -> Shapes:
    """What a task owns, by flat name as in ``LearnedTask.named``."""
    shapes = {f"head.{name}": shape for name, shape in net.head.shapes(num_classes).items()}
    for i, block in enumerate(net.blocks):
        own = sharing.task_shapes(block) if configuration[i] else block.shapes
        shapes |= {f"layer.{i}.{name}": shape for name, shape in (own | block.statistics).items()}
    return shapes


def _weights_sum(description: Mapping[str, Any]) -> str:
    found = description["weights"]
    if not isinstance(found, str) or not re.fullmatch("[0-9a-f]{64}", found):
        raise StorageError(f"Expected a checksum of the weights in {description['place']}; got {found!r}.")
    return found


def _weights_file(description: Mapping[str, Any]) -> Path:
    place = Path(description["place"])
    named_by_content = place.name != "task.json"
    return place.with_name(
        f"weights-{_weights_sum(description)[:16]}.safetensors" if named_by_content else "weights.safetensors"
    )


def _three(values: Any) -> tuple[int, int, int]:
    train, valid, test = (int(value) for value in values)
    return train, valid, test
