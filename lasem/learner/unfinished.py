"""A task that a growing model has begun to learn: kept in a hidden folder of the model until it is learned.

``learning.json`` says what is learned from what, the checkpoint next to it how far it has come. Neither belongs to the
model; both are removed once the model has the task.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from lasem.data import Task
from lasem.data.images import in_chunks
from lasem.data.readers import existing_path
from lasem.data.sources import Source
from lasem.errors import StorageError, quoted
from lasem.files import MAX_INDEX_BYTES, parse_json, read_bytes, write_file
from lasem.learner.learner import Learner
from lasem.learner.model_folder import LEARNING, as_storage_error
from lasem.records import EpochRecord, of_kind, read_records, to_json
from lasem.settings import flat, from_plain, to_plain
from lasem.training import EARLIER, Checkpoint, TrainingConfig, TrainingState

_ABOUT, _RECORDS = "learning.json", "records.jsonl"
_MAY_DIFFER = ("begun", "test images")
"""What may differ when learning goes on."""

Given = Mapping[str, Any]
"""Where images come from, by split: a Source, a Task, or None."""

About = dict[str, Any]
"""Everything that the result depends on, by what a person calls it."""


@final
class Unfinished:
    """The learning under way in a model's folder, if there is any."""

    def __init__(self, directory: Path, *, only_look: bool = False) -> None:
        """Look into the folder of a model; StorageError if that is not possible, unless to look was all.

        What did not reach the disk whole counts as not begun.
        """
        self._folder = directory / LEARNING
        self.about: About = {}
        path = self._folder / _ABOUT
        try:
            about = parse_json(path, read_bytes(path, inside=directory, max_bytes=MAX_INDEX_BYTES))
            self.about = about if isinstance(about.get("task"), str) else {}
        except StorageError as error:
            if isinstance(error.__cause__, PermissionError) and not only_look:
                raise

    @property
    def task(self) -> str | None:
        """The name of the task that is learned; None if there is none."""
        return self.about.get("task")

    def is_ended(self, learned: Collection[str], made: str) -> bool:
        """Return whether a model with these tasks, whose index has the checksum ``made``, has learned it to its end."""
        is_new_version = bool(self.about.get("update")) and self.about.get("model") == made
        return self.task is not None and self.task in learned and not is_new_version

    def begin(self, about: About) -> None:
        """Start with nothing trained."""
        self.remove()
        write_file(self._folder / _ABOUT, json.dumps(about, indent=1) + "\n", durable=False)
        self.about = about

    def records(self, num_epochs: int) -> list[EpochRecord]:
        """Return the records of the first epochs; none if they cannot be read."""
        with suppress(StorageError):
            return [r for r in of_kind(read_records(self._folder / _RECORDS), EpochRecord) if r.epoch <= num_epochs]
        return []

    def keep(self, num_epochs: int, state: TrainingState, records: Sequence[EpochRecord]) -> None:
        """Keep the records so far and what the epochs still to come depend on; StorageError if that fails."""
        lines = "".join(f"{to_json(record)}\n" for record in records)
        write_file(self._folder / _RECORDS, lines, durable=False)
        Checkpoint(0, num_epochs, state).save(self._folder)

    def reached(self) -> Checkpoint | None:
        """Where it goes on; None if that is the start."""
        return Checkpoint.load(self._folder)

    def remove(self) -> None:
        """Throw it away; StorageError if that fails."""
        try:
            shutil.rmtree(self._folder)
        except FileNotFoundError:
            pass
        except OSError as error:
            reason = error.strerror or error
            raise StorageError(f"Cannot remove {self._folder}: {reason}. Its owner can remove it.") from error
        self.about = {}

    def begun(self, name: str | None, given: Given) -> tuple[str, bool, TrainingConfig, dict[str, Any]]:
        """Return the unfinished task's name, whether it is an update, its training and where its images come from.

        What is not given is as it was begun. StorageError if there is none, or it needs images in memory.
        """
        if self.task is None:
            place = self._folder.parent
            raise StorageError(f"Expected an unfinished task in {place}; there is none. Give a task and its images.")
        with as_storage_error(f"Task '{self.task}' cannot be gone on with"):
            begun = self.about.get("begun")
            if begun is None:
                raise StorageError(f"An earlier lasem began task '{self.task}'. Give the command that began it.")
            training = from_plain(TrainingConfig, EARLIER | begun["training"], "training")
            stored = {part: from_plain(Source, plain, part) for part, plain in begun["images"].items()}
        images = {part: place if place is not None else stored.get(part) for part, place in given.items()}
        if isinstance(images["train"], Task):
            images |= {"valid": None, "test": None}
        if images["train"] is None:
            raise StorageError(f"Task '{self.task}' was begun with images in memory. Give them again (train).")
        return name or self.task, bool(self.about.get("update")), training, images

    def check_idle(self, name: str) -> None:
        """Raise StorageError if another task is unfinished."""
        if self.task is not None and self.task != name:
            place, task = quoted(str(self._folder.parent)), quoted(self.task)
            raise StorageError(
                f"Task '{self.task}' in {self._folder.parent} is not finished: its learning was interrupted. Go on "
                f"with it: lasem learn {place} --resume, or throw it away: lasem forget {place} --task {task}."
            )

    def check_same(self, about: About) -> None:
        """Raise StorageError, which says what differs, unless it was begun with all of this."""
        known = self.about | {"update": self.about.get("update")}  # of settings that it lacks, lasem knew none then
        differing = [name for name in known if name not in _MAY_DIFFER and known[name] != about.get(name)]
        if differing:
            listed = "; ".join(_difference(name, known[name], about.get(name)) for name in differing)
            images = any(name == "classes" or name.endswith(" images") for name in differing)
            raise StorageError(
                f"Task '{about['task']}' was begun before and is not finished, but what it is learned from has changed "
                f"since: {listed}. {'Give the same images' if images else 'Leave those options out'} and go on with "
                f"--resume (resume=True), or begin anew with --restart (restart=True), without --resume."
            )


def made_with(learner: Learner, training: TrainingConfig) -> dict[str, Any]:
    """Return a learner's settings by part, as an index has them, with some training."""
    parts = {"net": learner.net.description(), **learner.settings(), "training": to_plain(training)}
    return parts | {"seed": learner.seed}


def about_learning(learner: Learner, task: Task, training: TrainingConfig, made: str, given: Given) -> dict[str, Any]:
    """Return everything that the result of learning depends on, and under ``begun`` what ``Unfinished.begun`` needs."""
    about: dict[str, Any] = {"task": task.name, "model": made, "seed": learner.seed}
    begun = made_with(learner, training)
    for part, plain in begun.items():
        about |= called(part, plain)
    begun["images"] = {
        part: to_plain(source) | {"path": os.path.abspath(existing_path(source.path))}
        for part, source in given.items()
        if isinstance(source, Source)
    }
    return about | about_images(task) | {"begun": begun}


def called(part: str, plain: Any) -> dict[str, Any]:
    """Return a part's plain settings by what a person calls them; its name is what the part is."""
    return {name.removesuffix(".name"): value for name, value in flat(plain, part).items()}


def about_images(task: Task) -> About:
    """Return a task's classes and the checksums of its splits; damaged files are met here, before training."""
    about: About = {"classes": list(task.classes), "scale": task.scale}
    for part, split in (("training", task.train), ("validation", task.valid), ("test", task.test)):
        found = hashlib.sha256(split.labels.numpy().tobytes())
        for images in in_chunks(split.images):
            found.update(images.contiguous().numpy().tobytes())
        about[f"{part} images"] = f"{len(split)} images, {found.hexdigest()}"
    return about


def _difference(name: str, before: Any, now: Any) -> str:
    if isinstance(before, str) and isinstance(now, str) and len(before) > 60:
        counts = [value.partition(",")[0] for value in (before, now)]
        return f"{name} ({' before, '.join(counts)} now)" if counts[0] != counts[1] else f"{name} (others)"
    if name == "model":
        return "the model itself (other tasks were learned or forgotten)"
    return f"{name} ({in_words(before)} before, {in_words(now)} now)"


def in_words(value: Any) -> str:
    """Return a setting's value as a person writes it, shortened."""
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
