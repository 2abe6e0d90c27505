"""A model's index: its settings and tasks, read from a file that may come from a stranger."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, final

import torch

from lasem.errors import StorageError
from lasem.learner.model_folder import ModelFolder
from lasem.methods import METHODS
from lasem.methods.method import AbstractMethod, Shapes
from lasem.methods.model import StoredPart
from lasem.methods.protection import PROTECTIONS
from lasem.methods.transfer import Transfer
from lasem.nets import AbstractNet
from lasem.search import SEARCHES
from lasem.settings import Range, from_plain, read_value, settings_of, to_plain
from lasem.sharing import SHARINGS
from lasem.training import Named, TrainingConfig

Natural = Annotated[int, Range(least=0)]

KNOWN: dict[str, Mapping[str, type[Any]]] = {
    "sharing": SHARINGS,
    "search": SEARCHES,
    "protect": PROTECTIONS,
    "method": METHODS,
}
"""The parts of a learner that a file can name."""

MAX_LAYERS = 10_000
MAX_NUMBERS = 2**29
"""That one image may become between two layers: 2 GiB."""


@final
@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """What is known of a learned task apart from its tensors."""

    name: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    """Of each channel, subtracted from images."""
    std: tuple[float, ...]
    """Of each channel, divides images."""
    num_epochs: int
    """Epochs that its kept weights were trained for."""
    valid_accuracy: float
    peak_accuracy: float
    num_images: tuple[int, ...]
    """To train, to validate and to test; no image to test: what validates is tested on."""
    configuration: str
    """Which layers it transfers (T) or has for itself (S)."""
    versions: tuple[int, ...] = ()
    """For each layer the version of the shared knowledge that it uses, where there are several."""
    evidence: tuple[float, ...] = ()
    """For each layer how much its images speak for transfer (``lasem.search.evidence``), where that was measured."""
    temperature: Annotated[float, Range(above=0)] = 1.0
    """Divides logits, so that probabilities are what the validation images say (``best_temperature``)."""
    scale: Annotated[float, Range(above=0)] | None = 1.0
    """The value of white in the images that the mean and the std are of; None: not known, or there is none."""
    left_out: tuple[str, ...] = ()
    """What was not used of the place that its images came from, as in Task."""
    training: TrainingConfig
    """How it was trained."""

    def to_plain(self, usual: TrainingConfig) -> dict[str, Any]:
        """Return what an index says of the task; of its training what differs from what is usual in the model."""
        return to_plain(self) | {"training": self.trained_differently(usual)}

    def trained_differently(self, usual: TrainingConfig) -> dict[str, Any]:
        """Return the settings of its training that are not the usual ones."""
        before = to_plain(usual)
        return {name: value for name, value in to_plain(self.training).items() if value != before[name]}


def parts_of(method: AbstractMethod) -> dict[str, Any]:
    """Return a method's settings by what a person calls them: sharing, search and protect, or method."""
    if isinstance(method, Transfer):
        return {part: getattr(method, part) for part in ("sharing", "search", "protect")}
    return {"method": method}


def check_sizes(net: AbstractNet) -> None:
    """Raise StorageError if a network that a file describes is too large to be computed, before memory is taken for it.

    An image has at most height x width x the widest layer's outputs numbers in between, for no layer enlarges it.
    """
    if net.depth > MAX_LAYERS:
        raise StorageError(f"Expected a network of at most {MAX_LAYERS:,} layers; got {net.depth:,}.")
    words = 0 if net.vocabulary is None else net.vocabulary.size  # a table of words is looked up, not multiplied
    outputs = (shape[0] for shapes in net.block_shapes for shape in shapes.values() if shape and shape[0] != words)
    channels, height, width = net.image_shape
    most = math.prod((height, width, max(channels, *outputs, *net.head.hidden)))
    if most > MAX_NUMBERS:
        raise StorageError(
            f"Expected a network that makes at most {MAX_NUMBERS:,} numbers of an image of {net.image_shape} "
            f"(channels, height, width); this one makes up to {most:,}."
        )


def stored_method(index: Mapping[str, Any], given: Mapping[str, Any]) -> AbstractMethod:
    """Return the method that a model was saved with; what is given replaces what an index says.

    Unless it is given, a search is None: a model answers without it.

    Raises:
        StorageError: if the index names a user's own part that is not given, or what is given is no part of its method.
    """
    strange = ("sharing", "search", "protect") if "method" in index else ("method",)
    wrong = next((part for part in strange if given[part] is not None), None)
    if wrong is not None:
        made = index["method"]["name"] if "method" in index else Transfer.name
        raise StorageError(f"The model was saved with method '{made}'; got {wrong} as well. Leave {wrong} out.")
    if "method" in index:
        found: AbstractMethod = given["method"] or stored_choice(index["method"], "method")
        return found
    sharing, protect = (given[part] or stored_choice(index[part], part) for part in ("sharing", "protect"))
    return Transfer(sharing=sharing, search=given["search"], protect=protect)


def stored_choice(entry: Mapping[str, Any], what: str) -> Any:
    """Of lasem's own parts the one that an index names, with its settings; StorageError if it is a user's own."""
    name, known = entry["name"], KNOWN[what]
    if name not in known:
        raise StorageError(
            f"The model was saved with the {what} '{name}', which is not lasem's own: pass {what}=... to load (in "
            f"Python; the command line cannot know it)."
        )
    return from_plain(known[name], {key: value for key, value in entry.items() if key != "name"}, what)


def stored_task(entry: Any, net: AbstractNet, usual: Mapping[str, Any]) -> TaskInfo:
    """Return what an index says of one task; StorageError if that does not fit the network.

    Args:
        entry: of the task.
        net: the model's.
        usual: the model's settings of training, which are the task's unless it says otherwise.
    """
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise StorageError(f"Expected a name for each task; got {str(entry)[:60]}. The model is damaged.")
    # where no scale is stored yet, a mean that pixels from 0 to 1 cannot have shows that they were floats of another
    entry = {"scale": 1.0 if all(0 <= float(value) <= 1 for value in entry["mean"]) else None} | entry
    trained = from_plain(TrainingConfig, {**usual, **entry.get("training", {})}, f"training of '{entry['name']}'")
    values = {
        key: read_value(entry[key], annotation, f"{key} of task '{entry['name']}'")
        for key, annotation in settings_of(TaskInfo).items()
        if key in entry and key != "training"
    }
    info = TaskInfo(name=entry["name"], training=trained, **values)
    if not set(info.configuration) <= {"S", "T"} or len(info.configuration) != net.depth:
        raise StorageError(
            f"Task '{info.name}' has layers {info.configuration[:20]}; the network has {net.depth} layers."
        )
    if len(info.evidence) not in (0, net.depth):
        raise StorageError(f"Task '{info.name}' needs one number for each layer as evidence. The model is damaged.")
    if len(info.num_images) != 3:
        raise StorageError(f"Task '{info.name}' needs three numbers of images. The model is damaged.")
    channels = net.image_shape[0]
    if not len(info.mean) == len(info.std) == channels:
        raise StorageError(f"Task '{info.name}' needs one mean and one std for each of {channels} channels.")
    return info


def read_part(folder: ModelFolder, part: StoredPart, device: torch.device, shapes: Shapes | None, what: str) -> Named:
    """Read a part's tensors; where shapes are known, StorageError unless there is just one tensor for each."""
    if shapes is None:
        return folder.tensors(part, device)
    # 8 bytes a number, and names, shapes and alignment around them
    max_bytes = 8 * sum(math.prod(shape) for shape in shapes.values()) + 2**20 + 1024 * len(shapes)
    tensors = folder.tensors(part, device, max_bytes=max_bytes)
    found = {name: tuple(t.shape) for name, t in tensors.items()}
    if found != dict(shapes):
        wrong = sorted(name for name in found.keys() | shapes.keys() if found.get(name) != shapes.get(name))
        listed = "; ".join(f"{name}: {shapes.get(name, 'none')}, got {found.get(name, 'none')}" for name in wrong[:3])
        raise StorageError(f"Expected other tensors in {what}: {listed}. The model is damaged.")
    return tensors
