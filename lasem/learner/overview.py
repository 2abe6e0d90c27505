"""What a model's folder holds, without its weights."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final


@final
@dataclass(frozen=True, kw_only=True)
class TaskOverview:
    """One learned task."""

    name: str
    classes: tuple[str, ...]
    configuration: str
    """What it transfers (T) and what it learned for itself (S), for instance ``STTS``."""
    num_epochs: int
    num_train: int
    num_valid: int
    num_test: int
    valid_accuracy: float
    """When it was learned, in [0, 1]."""
    test_accuracy: float | None
    """When it was learned; None if there were no images to test."""
    test_accuracy_now: float | None
    """The same if the model's protection keeps what earlier tasks answer; else None, for nobody has measured it."""
    num_parameters: int
    """Numbers that the task alone owns."""
    num_bytes: int
    """Of its files."""

    @classmethod
    def of(cls, description: Mapping[str, Any], num_parameters: int, *, keeps: bool) -> TaskOverview:
        """From what ``lasem.learner.task_files.description_of`` gives, and whether the model keeps earlier answers."""
        num_train, num_valid, num_test = (int(count) for count in description.get("num_images", (0, 0, 0)))
        known = num_test > 0 or num_train == 0  # the first format did not say how many there were
        test_accuracy = float(description["peak_accuracy"]) if known else None
        return cls(
            name=str(description["name"]),
            classes=tuple(str(name) for name in description["classes"]),
            configuration=str(description["configuration"]),
            num_epochs=int(description["num_epochs"]),
            num_train=num_train,
            num_valid=num_valid,
            num_test=num_test,
            valid_accuracy=float(description["valid_accuracy"]),
            test_accuracy=test_accuracy,
            test_accuracy_now=test_accuracy if keeps else None,
            num_parameters=num_parameters,
            num_bytes=bytes_in(Path(description["place"]).parent),
        )


@final
@dataclass(frozen=True, kw_only=True)
class ModelOverview:
    """A model and its tasks."""

    directory: str
    image_shape: tuple[int, int, int]
    """Channels, height and width."""
    depth: int
    """Layers that may be transferred."""
    settings: dict[str, Any]
    """What the model was made with: network, sharing, search, training, protection and seed."""
    tasks: tuple[TaskOverview, ...]
    """In the order in which they were learned."""
    keeps: bool
    """Whether its protection keeps what each task answers, to the bit."""
    num_shared_parameters: int
    """Numbers that tasks share."""
    num_kept_parameters: int
    """Of these, those in versions of layers that only earlier tasks use: the price of protection by ``branch``."""
    num_parameters: int
    """All numbers of the model."""
    num_bytes: int
    """Of its files."""
    unfinished: str | None
    """Task whose learning was interrupted and will go on."""

    def to_plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)


def bytes_in(folder: Path) -> int:
    """Size of all files in a folder, hidden ones not counted; other processes may remove some meanwhile."""
    total = 0
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            with suppress(FileNotFoundError):
                about = os.lstat(os.path.join(place, name))
                total += about.st_size if stat.S_ISREG(about.st_mode) and not name.startswith(".") else 0
    return total
