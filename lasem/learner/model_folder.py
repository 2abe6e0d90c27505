"""A model on disk: an index, and tensors in files that are named by their content and never changed.

``config.json`` is replaced last and names everything with checksums, so the folder holds the model before or after a
change, never one between; who read the index a moment ago still finds its files, or finds another index::

    config.json                the index: settings, the tasks in order, and the file of each part
    parts/SUM.safetensors      named tensors: what a task owns, a version of a shared layer, ...

A model's folder may come from a stranger. Nothing in it is executed, no name in it becomes a path, no symbolic link
leads out of it, and a file's size is looked at before its content.
"""

import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, final

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from lasem.errors import LasemError, MovedError, StorageError, quoted
from lasem.files import MAX_INDEX_BYTES, check_inside, checksum, locked, parse_json, read_bytes, write_file
from lasem.methods import METHODS
from lasem.methods.method import AbstractMethod, Shapes
from lasem.methods.model import StoredPart, count
from lasem.methods.protection import PROTECTIONS
from lasem.methods.transfer import Transfer
from lasem.nets import AbstractNet
from lasem.search import SEARCHES
from lasem.settings import Range, from_plain, read_value, settings_of, to_plain
from lasem.sharing import SHARINGS
from lasem.training import EARLIER, Named, TrainingConfig

FORMAT_VERSION = 3

LEARNING = ".learning"
"""The folder in a model's folder that has the state of the task under way."""

_INDEX, _PARTS, _CHECKSUM = "config.json", "parts", "checksum"
_PART_NAME = re.compile(r"[0-9a-f]{64}\.safetensors")
_MAX_TRIES = 20

Result = TypeVar("Result")

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
class ModelFolder:
    """The folder of one model. One process at a time changes it (``locked``); reading takes no lock."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._parts = self.directory / _PARTS

    def index_bytes(self) -> bytes:
        """Return the index as it is in its file; StorageError if there is none."""
        if not os.path.lexists(self.directory / _INDEX) and os.path.isdir(self.directory / LEARNING):
            raise StorageError(
                f"The first task of {self.directory} was interrupted; there is no model yet. Go on with it: "
                f"lasem learn {quoted(str(self.directory))} --resume."
            )
        return read_bytes(self.directory / _INDEX, inside=self.directory, max_bytes=MAX_INDEX_BYTES)

    def index(self) -> dict[str, Any] | None:
        """Return the index; None where no model is yet. StorageError if it is damaged, or another thing is there."""
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
            reason = getattr(error, "strerror", None) or error
            raise StorageError(f"Expected a model's folder at {self.directory}; {reason}.") from error

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
        """Return the tensors of a part, by name in alphabetical order, on a device.

        StorageError if the file is not there, has changed or is damaged; one of more than ``max_bytes`` is not read.
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
        """Make an index, whose parts have been ``put``, the folder's, then remove the parts that it does not name.

        Format and checksum are added. StorageError if it cannot be written; the model is as before.
        """
        write_file(self.directory / _INDEX, sealed({"format_version": FORMAT_VERSION, **index}))
        self.sweep()

    @contextmanager
    def locked(self, wait: float) -> Iterator[None]:
        """Hold the folder, which is made if it is not there.

        StorageError if another process still holds it after ``wait`` seconds, or it cannot be written.
        """
        waited = f" for {wait:g} seconds" if wait > 0 else ""
        busy = (
            f"Another process is changing the model in {self.directory}{waited}. Try again when it has ended, or wait "
            f"for it with --wait SECONDS."
        )
        with locked(self.directory, busy, wait):
            self._held = _identity(self.directory)
            try:
                yield
            except BaseException:
                self.check_held()
                raise

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

    Unless it is given, a search is None: a model answers without it. StorageError if the index names a user's own part
    that is not given, or what is given is no part of its method.
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


def stored_task(entry: Any, net: AbstractNet, usual: TrainingConfig) -> TaskInfo:
    """Return what an index says of one task; StorageError if that does not fit the network.

    ``usual`` is how the model trains, which is the task's training unless it says otherwise.
    """
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise StorageError(f"Expected a name for each task; got {str(entry)[:60]}. The model is damaged.")
    # where no scale is stored yet, a mean that pixels from 0 to 1 cannot have shows that they were floats of another
    entry = {"scale": 1.0 if all(0 <= float(value) <= 1 for value in entry["mean"]) else None} | entry
    trained = usual
    if (other := entry.get("training", {})) != {}:
        trained = from_plain(TrainingConfig, {**to_plain(usual), **other}, f"training of '{entry['name']}'")
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
