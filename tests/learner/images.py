"""Image folders made of scikit-learn's digits, and a growing model that learns them in a moment."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lasem import EM, GrowingModel, TrainingConfig
from lasem.learner import Observer
from lasem.nets import ImageShape, Net
from lasem.records import EpochRecord, TimingRecord

from .fixture import files_in


def write_digits(place: Path, digits: tuple[int, ...], first: int = 0, count: int = 8, size: int = 8) -> Path:
    """``place/digit-K/*.png``: some images of each digit."""
    from sklearn.datasets import load_digits  # a second of imports, which processes of other tests do without

    data = load_digits()
    for digit in digits:
        folder = place / f"digit-{digit}"
        folder.mkdir(parents=True, exist_ok=True)
        for index in np.nonzero(data.target == digit)[0][first : first + count]:
            pixels = (data.images[index] * 15.9).astype(np.uint8)
            Image.fromarray(pixels).resize((size, size)).save(folder / f"{index}.png")
    return place


def small_net(shape: ImageShape) -> Net:
    return Net(image_shape=shape, channels=(3, 4), kernels=(3, 3), pools=(2, 2), hidden=(6,))


def small_model(place: Path, **other: Any) -> GrowingModel:
    settings: dict[str, Any] = {
        "net": small_net,
        "search": EM(first_task="search", commit_share=0.5),
        "training": TrainingConfig(epochs=3, batch_size=5, learning_rate=0.01),
        "seed": 5,
        "checkpoint_seconds": 0,
    }
    return GrowingModel(place, **(settings | other))


class StoppedError(Exception):
    pass


class Watching(Observer):
    """Keeps what a person may want to know, and calls a function after every epoch."""

    def __init__(
        self, notes: list[str] | None = None, *, epoch_ends: Callable[[EpochRecord, TimingRecord], None] | None = None
    ) -> None:
        self.notes, self._epoch_ends = [] if notes is None else notes, epoch_ends or super().epoch_ends

    def epoch_ends(self, record: EpochRecord, timing: TimingRecord) -> None:
        self._epoch_ends(record, timing)

    def note(self, message: str) -> None:
        self.notes.append(message)


def stop(model: GrowingModel, *given: Any, epoch: int = 2, **more: Any) -> None:
    """Begin to learn a task and stop after an epoch."""

    def watch(record: EpochRecord, _: TimingRecord) -> None:
        if record.epoch == epoch:
            raise StoppedError

    with pytest.raises(StoppedError):
        model.learn(*given, observer=Watching(epoch_ends=watch), **more)


def model_files(place: Path) -> dict[str, bytes]:
    """Everything that belongs to the model: no lock, no unfinished task."""
    return {name: data for name, data in files_in(place).items() if "/." not in f"/{name}"}
