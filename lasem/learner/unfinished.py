"""A task that a growing model has begun to learn: kept in a hidden folder of the model until it is learned.

``learning.json`` says what is learned from what, the checkpoint next to it how far it has come. Neither belongs to the
model; both are removed once the model has the task.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from lasem.data import Task
from lasem.data.images import in_chunks
from lasem.errors import StorageError
from lasem.files import write_file
from lasem.learner.model_folder import MAX_INDEX_BYTES, check_inside, parse_json, read_bytes
from lasem.training import Checkpoint, TrainingState

FOLDER = ".learning"
_ABOUT = "learning.json"

About = dict[str, Any]
"""Everything that the result depends on, by what a person calls it."""


@final
class Unfinished:
    """The learning under way in a model's folder, if there is any."""

    def __init__(self, directory: Path) -> None:
        """Look into the folder of a model."""
        self._folder = directory / FOLDER
        check_inside(self._folder, directory)
        self._about: About | None = None
        path = self._folder / _ABOUT
        if path.exists():
            with suppress(StorageError):  # it did not reach the disk whole: then it counts as not begun
                about = parse_json(path, read_bytes(path, inside=self._folder, max_bytes=MAX_INDEX_BYTES))
                self._about = about if isinstance(about.get("task"), str) else None

    @property
    def task(self) -> str | None:
        """The name of the task that is learned; None if there is none."""
        return None if self._about is None else str(self._about["task"])

    def begin(self, about: About) -> None:
        """Start with nothing trained."""
        self.remove()
        write_file(self._folder / _ABOUT, json.dumps(about, indent=1) + "\n", durable=False)
        self._about = about

    def keep(self, num_epochs: int, state: TrainingState) -> None:
        """Keep what the epochs still to come depend on; StorageError if it cannot be written."""
        Checkpoint(0, num_epochs, state).save(self._folder)

    def reached(self) -> Checkpoint | None:
        """Where it goes on; None if that is the start."""
        return Checkpoint.load(self._folder)

    def remove(self) -> None:
        """Throw it away."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._about = None

    def check_same(self, about: About) -> None:
        """Raise StorageError, which says what differs, unless it was begun with all of this."""
        before = self._about or {}
        differing = [
            name for name in (*before, *(n for n in about if n not in before)) if before.get(name) != about.get(name)
        ]
        if differing:
            listed = "; ".join(_difference(name, before.get(name), about.get(name)) for name in differing)
            raise StorageError(
                f"Task '{about['task']}' was begun before and is not finished, but what it is learned from has changed "
                f"since: {listed}. Go on with what it was begun with, or throw it away with --restart (restart=True)."
            )


def about_images(task: Task) -> About:
    """Return a task's classes and the checksums of its splits; damaged files are met here, before training."""
    about: About = {"classes": list(task.classes)}
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
    return f"{name} ({_short(before)} before, {_short(now)} now)"


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
