"""A learner on disk: safetensors and JSON, never pickle.

``config.json`` is written last and names what belongs to the model with checksums, so the folder holds the model before
or after a save, never one between. Other files are named by their content and never changed: whoever read the index a
moment ago still finds them, or finds another index::

    config.json                             settings, order of the tasks, checksums
    shared-SUM.safetensors                  shared knowledge, the latest version of each layer
    versions/layer-L@V-SUM.safetensors      an earlier version of a layer that some task uses
    tasks/NAME/task-SUM.json                configuration, classes, preprocessing, metrics
    tasks/NAME/weights-SUM.safetensors      what the task owns

The first format, which is still read, had ``shared-N.safetensors`` after N tasks, ``task.json`` and
``weights.safetensors``.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, final

import torch
from torch import Tensor

from lasem.errors import StorageError
from lasem.files import checksum, write_file
from lasem.learner.computable import check_computable
from lasem.learner.model_files import (
    FORMAT_VERSION,
    MOST_JSON_BYTES,
    check_entry,
    check_seal,
    check_version,
    damage_told,
    parse_json,
    read_bytes,
    read_tensors,
    remove_files,
    sealed,
    to_bytes,
)
from lasem.learner.protection import PROTECTIONS, AbstractProtection, Unprotected
from lasem.learner.shared import SharedKnowledge
from lasem.learner.task_files import TaskFiles, check_shapes, most_bytes, outline_of, read_task, remove_others
from lasem.learner.tasks import Entry, LearnedTasks
from lasem.learner.version_files import FOLDER as VERSIONS
from lasem.learner.version_files import remove_versions, stored_versions, write_versions
from lasem.nets import AbstractNet, rebuild
from lasem.search import SEARCHES, AbstractSelection
from lasem.settings import from_plain, to_named
from lasem.sharing import SHARINGS, AbstractSharing
from lasem.training import Quadratic, TrainingConfig, part_of

KNOWN: dict[str, Mapping[str, type[Any]]] = {"sharing": SHARINGS, "search": SEARCHES, "protect": PROTECTIONS}
"""The parts of a learner that a file can name."""

_SHARED = re.compile(r"shared-[0-9a-f]{1,16}\.safetensors")
_MOST_TRIES = 20
_FILES_OF_A_TASK = 2

Result = TypeVar("Result")


@final
@dataclass(frozen=True)
class StoredLearner:
    """What a model's folder holds."""

    net: AbstractNet
    sharing: AbstractSharing
    search: AbstractSelection | None
    training: TrainingConfig
    protect: AbstractProtection
    seed: int
    num_learned: int
    """Tasks ever learned, also those that were forgotten."""
    shared: SharedKnowledge
    needed: Quadratic | None
    tasks: LearnedTasks


def save(
    directory: Path,
    net: AbstractNet,
    settings: dict[str, Any],
    seed: int,
    num_learned: int,
    shared: SharedKnowledge,
    needed: Quadratic | None,
    tasks: LearnedTasks,
) -> None:
    """Write a model; a folder that holds an earlier state of the same model gets what is new.

    Raises:
        StorageError: if the folder holds another model or other files, or cannot be written.
    """
    files = {name: TaskFiles.of(tasks[name]) for name in tasks if tasks.entry(name) is None}
    entries = {name: files[name].entry if name in files else _entry(tasks, name) for name in tasks}
    stored = stored_config(directory)
    known = _known_entries(directory, stored, net, entries, tasks.forgotten)
    new = [name for name, entry in entries.items() if entry["checksum"] not in known]
    for name in new:
        written = files.get(name) or TaskFiles.of(tasks[name])
        written.write(directory)
        entries[name] = written.entry
    held = {} if needed is None else {f"needed.{name}": value for name, value in needed.named().items()}
    versions = write_versions(directory, shared, (stored or {}).get("versions", {}))
    shared_bytes = to_bytes(shared.only_latest().named() | held)
    shared_name = f"shared-{checksum(shared_bytes)[:16]}.safetensors"
    write_file(directory / shared_name, shared_bytes)
    config = {
        "format_version": FORMAT_VERSION,
        "seed": seed,
        "num_learned": num_learned,
        "net": net.description(),
        **{key: to_named(value, KNOWN.get(key, {})) for key, value in settings.items()},
        "shared": {"file": shared_name, "checksum": checksum(shared_bytes)},
        **({"versions": versions} if versions else {}),
        "tasks": list(entries.values()),
    }
    write_file(directory / "config.json", sealed(config))
    tasks.saved_as(entries)
    with suppress(OSError):  # what cannot be removed does no harm; the next save tries again
        _remove_old(directory, shared_name, entries)
        remove_versions(directory, versions)


def load(
    directory: Path,
    device: torch.device,
    *,
    sharing: AbstractSharing | None,
    search: AbstractSelection | None,
    training: TrainingConfig | None,
    protect: AbstractProtection | None = None,
    net: AbstractNet | None = None,
    lazy: bool = False,
) -> StoredLearner:
    """Read what ``save`` wrote; what is given replaces what is stored.

    A save that replaces files at the same moment is no damage: it is read again then.

    Raises:
        StorageError: if it is not there, damaged, or of a later format.
    """
    return undisturbed(
        directory, lambda config: _load(directory, config, device, sharing, search, training, protect, net, lazy=lazy)
    )


def undisturbed(directory: Path, read: Callable[[dict[str, Any]], Result]) -> Result:
    """Read a model by its index, and again if another process has replaced the index meanwhile.

    Raises:
        StorageError: if there is no index, it is damaged or of a later format; or what ``read`` raises.
    """
    path = directory / "config.json"
    for tries_left in reversed(range(_MOST_TRIES)):
        data = read_bytes(path, inside=directory, most_bytes=MOST_JSON_BYTES)
        config = parse_json(path, data)
        check_version(directory, config)
        check_seal(path, config)
        try:
            return read(config)
        except StorageError:
            same = read_bytes(path, inside=directory, most_bytes=MOST_JSON_BYTES) == data
            if same or not tries_left:
                raise
    raise AssertionError("not reached")


def _load(
    directory: Path,
    config: dict[str, Any],
    device: torch.device,
    sharing: AbstractSharing | None,
    search: AbstractSelection | None,
    training: TrainingConfig | None,
    protect: AbstractProtection | None,
    given: AbstractNet | None,
    *,
    lazy: bool,
) -> StoredLearner:
    if "method" in config:
        raise StorageError(f"{directory} holds a baseline's model, not one of sharing and search: use BaselineLearner.")
    with damage_told(f"{directory} holds no model that can be read"):
        net = rebuild(config["net"], given)
        check_computable(net)
        seed = stored_seed(directory, config)
        sharing = sharing or stored_choice(SHARINGS, config["sharing"], "sharing")
        if search is None:
            search = stored_choice(SEARCHES, config["search"], "search")
            for index in (0, 1):
                search.space(net.depth, index)
        training = training or from_plain(TrainingConfig, _without_name(config["training"]), "training")
        if protect is None:
            protect = stored_choice(PROTECTIONS, config.get("protect", {"name": Unprotected.name}), "protect")
        tasks = _load_tasks(directory, config["tasks"], net, sharing, device)
        if not lazy:
            for name in tasks:
                tasks[name]
        num_learned = int(config.get("num_learned", len(tasks)))
        if num_learned < len(tasks):
            raise StorageError(f"Expected at least {len(tasks)} learned tasks in {directory}; got {num_learned}.")
        shared, needed = _load_shared(directory, config, tasks, net, sharing, device)
        if not lazy:
            for shelf in shared.layers:
                tuple(shelf.values())
        return StoredLearner(net, sharing, search, training, protect, seed, num_learned, shared, needed, tasks)


def stored_config(directory: Path) -> dict[str, Any] | None:
    """Settings and tasks of the model that is there; None where there is none yet."""
    path = directory / "config.json"
    if path.exists() or path.is_symlink():
        config = parse_json(path, read_bytes(path, inside=directory, most_bytes=MOST_JSON_BYTES))
        if not (isinstance(config.get("tasks"), list) and "net" in config and "format_version" in config):
            raise StorageError(f"{path} is not a lasem model's. Save into a new folder.")
        check_version(directory, config)
        check_seal(path, config)
        for entry in config["tasks"]:
            check_entry(entry)
        return config
    strange = [p.name for p in directory.iterdir()] if directory.is_dir() else []
    strange = [n for n in strange if n not in ("tasks", VERSIONS) and not n.startswith((".", "shared-", "memory-"))]
    if strange:
        raise StorageError(f"{directory} holds other files ({', '.join(sorted(strange)[:3])}). Save into a new folder.")
    return None


def _entry(tasks: LearnedTasks, name: str) -> Entry:
    """What the index says of a task that was saved before; more than the first format said, if it was saved in that."""
    return {**(tasks.entry(name) or {}), **tasks.outline(name).to_plain()}


def _known_entries(
    directory: Path,
    stored: dict[str, Any] | None,
    net: AbstractNet,
    entries: dict[str, Entry],
    forgotten: frozenset[str],
) -> set[str]:
    """Checksums of the tasks in the folder; StorageError if they are another model's."""
    if stored is None:
        return set()
    known = [(entry["name"], entry["checksum"]) for entry in stored["tasks"]]
    ours = [(name, entry["checksum"]) for name, entry in entries.items()]
    gone = forgotten - {sum_of for _, sum_of in ours}
    kept = [entry for entry in known if entry[1] not in gone]
    if stored["net"] != net.description() or kept != ours[: len(kept)]:
        raise StorageError(f"{directory} holds another model. Save into a new folder, or delete that one first.")
    return {sum_of for _, sum_of in known}


def _remove_old(directory: Path, shared_name: str, entries: dict[str, Entry]) -> None:
    """Remove what no longer belongs to the model, also what a process left that was killed while it saved."""
    remove_files(directory, _SHARED, {shared_name})
    folders = directory / "tasks"
    for folder in folders.iterdir() if folders.is_dir() else ():
        if folder.name not in entries or len(os.listdir(folder)) > _FILES_OF_A_TASK:
            remove_others(directory, folder.name, entries.get(folder.name))


def _load_tasks(
    directory: Path, entries: list[dict[str, Any]], net: AbstractNet, sharing: AbstractSharing, device: torch.device
) -> LearnedTasks:
    outlines = [outline_of(directory, entry, net, sharing) for entry in entries]
    twice = next((name for name, count in Counter(outline.name for outline in outlines).items() if count > 1), None)
    if twice is not None:
        raise StorageError(f"Expected each task once in {directory / 'config.json'}; got '{twice}' twice.")
    return LearnedTasks.stored(
        (outline, entry, partial(read_task, directory, entry, outline, net, sharing, device))
        for outline, entry in zip(outlines, entries, strict=True)
    )


def _load_shared(
    directory: Path,
    config: dict[str, Any],
    tasks: LearnedTasks,
    net: AbstractNet,
    sharing: AbstractSharing,
    device: torch.device,
) -> tuple[SharedKnowledge, Quadratic | None]:
    entry = config["shared"]
    name = entry["file"]
    if not isinstance(name, str) or not _SHARED.fullmatch(name):
        raise StorageError(f"Expected the shared knowledge in a file such as shared-0.safetensors; got {name!r}.")
    shapes = [sharing.shared_shapes(block) for block in net.blocks]
    used = {
        (i, outline.versions[i])
        for outline in tasks.outlines
        for i, transferred in enumerate(outline.configuration)
        if transferred
    }
    # a version of each layer that no task uses any more, importances and anchors
    every = [shapes[i] for i, _ in used] + 3 * shapes
    flat = read_tensors(
        directory / name, entry["checksum"], device, inside=directory, most_bytes=sum(most_bytes(s) for s in every)
    )
    held = part_of(flat, "needed")
    shared = SharedKnowledge.from_named({k: v for k, v in flat.items() if not k.startswith("needed.")}, net.depth)
    apart = stored_versions(directory, config.get("versions", {}), shapes, device)
    there = {(i, number) for i, versions in enumerate(shared.layers) for number in versions}
    for i, number in sorted(there | {(i, number) for i, number in used if number not in apart[i]}):
        check_shapes(shared.of(i, number), shapes[i], f"layer {i} of {name}")
    shared = SharedKnowledge(tuple(s.with_stored(more) for s, more in zip(shared.layers, apart, strict=True)))
    return shared, _needed(held, shapes, name) if held else None


def _needed(held: dict[str, Tensor], shapes: list[dict[str, tuple[int, ...]]], name: str) -> Quadratic:
    """Where earlier tasks need shared weights; StorageError if it is not that."""
    expected = {f"layer.{i}.shared.{key}": shape for i, layer in enumerate(shapes) for key, shape in layer.items()}
    needed = Quadratic.from_named(held)
    for part in (needed.importance, needed.anchor):
        check_shapes(part, {key: expected.get(key, ()) for key in needed.importance}, f"what is needed of {name}")
    check_shapes({"constant": needed.constant}, {"constant": ()}, f"what is needed of {name}")
    return needed


def stored_seed(directory: Path, config: Mapping[str, Any]) -> int:
    """The seed in a model's index; StorageError if it is none."""
    seed = int(config["seed"])
    if seed < 0:
        raise StorageError(f"Expected a seed of at least 0 in {directory / 'config.json'}; got {seed}.")
    return seed


def stored_choice(known: Mapping[str, type[Any]], entry: Mapping[str, Any], what: str) -> Any:
    """Of lasem's own parts the one that an index names, with its settings; StorageError if it is a user's own."""
    name = entry["name"]
    if name not in known:
        raise StorageError(
            f"The model was saved with the {what} '{name}', which is not lasem's own: pass {what}=... to load (in "
            f"Python; the command line cannot know it)."
        )
    return from_plain(known[name], _without_name(entry), what)


def _without_name(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "name"}
