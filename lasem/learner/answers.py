"""A growing model's answers: about image files, and about itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from lasem.data.decode import Channels, decode
from lasem.data.folders import BROKEN, files_below
from lasem.data.images import in_chunks
from lasem.data.labelled import Labelled, counted
from lasem.data.readers import existing_path
from lasem.errors import ConfigError, DataError
from lasem.learner.calibration import expected_calibration_error
from lasem.learner.learner import Learner
from lasem.methods.model import Parts
from lasem.nets import AbstractNet
from lasem.space import layers_in_words

Skip = Callable[[str, DataError], None]
"""Called with a file that is no image, and why."""

_IMAGES_AT_ONCE = 64


@final
@dataclass(frozen=True)
class Prediction:
    """The answer for one image: the likeliest classes first."""

    image: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


@final
@dataclass(frozen=True)
class Evaluation:
    """How many of a task's images are labelled rightly."""

    num_images: int
    num_right: int
    by_class: Mapping[str, tuple[int, int]]
    """For each class that has images: how many, and how many rightly labelled."""
    calibration_error: float
    """How far probabilities are from the share of right answers (``expected_calibration_error``), in [0, 1]."""
    left_out: tuple[str, ...]
    """What was not used of the place that the images come from, as in Task."""

    @property
    def accuracy(self) -> float:
        """In [0, 1]."""
        return self.num_right / self.num_images


@final
@dataclass(frozen=True, kw_only=True)
class TaskOverview:
    """One learned task."""

    name: str
    classes: tuple[str, ...]
    configuration: str
    """What it transfers (T) and what it learned for itself (S), for instance ``STTS``."""
    layers: str
    """The same in words (``layers_in_words``)."""
    num_epochs: int
    num_train: int
    num_valid: int
    num_test: int
    valid_accuracy: float
    """When it was learned, in [0, 1]."""
    test_accuracy: float | None
    """When it was learned; None if there were no images to test."""
    test_accuracy_now: float | None
    """The same if the model keeps what earlier tasks answer; else None, for it has not been measured."""
    temperature: float
    """Divides logits (``TrainingConfig.calibrate``); 1: they are as the network gives them."""
    training: dict[str, Any]
    """Settings of its training that are not those that the model was made with."""
    left_out: tuple[str, ...]
    """What was not used of the place that its images came from, as in Task."""
    num_parameters: int
    """Numbers that the task alone owns."""
    num_bytes: int
    """Of its file."""


@final
@dataclass(frozen=True, kw_only=True)
class ModelOverview:
    """A model and its tasks."""

    directory: str
    image_shape: tuple[int, int, int]
    """Channels, height and width."""
    depth: int
    """Layers that may be transferred."""
    layers: tuple[str, ...]
    """Their names, input side first; empty where they have numbers only."""
    settings: dict[str, Any]
    """What the model was made with: network, method (or sharing, search and protection), training and seed."""
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


def channels_and_side(net: AbstractNet) -> tuple[Channels, int]:
    """Channels and side of a network's images; ConfigError if image files cannot be read for it."""
    channels, height, width = net.image_shape
    if channels not in (1, 3) or height != width:
        raise ConfigError(
            f"Image files are read as squares, grey or in colour; the network takes images of shape {net.image_shape} "
            f"(channels, height, width). Use Learner.load and give it tensors."
        )
    return (1 if channels == 1 else 3), height


def layer_names(net: AbstractNet) -> tuple[str, ...]:
    """Return the names of the layers that may be transferred; empty where they have numbers only."""
    names = tuple(block.name for block in net.blocks)
    return names if all(names) else ()


def overview_of(learner: Learner, name: str, *, measured_now: bool = False) -> TaskOverview:
    """Return what there is of a task; ``measured_now`` says that what was measured of it is of this moment."""
    info, stored = learner.info(name), Parts.of(learner.model.own).stored(name)
    num_train, num_valid, num_test = info.num_images
    tested = info.peak_accuracy if num_test else None
    return TaskOverview(
        name=name,
        classes=info.classes,
        configuration=info.configuration,
        layers=layers_in_words(info.configuration, layer_names(learner.net)),
        num_epochs=info.num_epochs,
        num_train=num_train,
        num_valid=num_valid,
        num_test=num_test,
        valid_accuracy=info.valid_accuracy,
        test_accuracy=tested,
        test_accuracy_now=tested if measured_now or learner.method.keeps else None,
        temperature=info.temperature,
        training=info.trained_differently(learner.training),
        left_out=info.left_out,
        num_parameters=learner.num_parameters(name),
        num_bytes=0 if stored is None else stored.num_bytes,
    )


def predict(
    learner: Learner, name: str, places: Iterable[str | Path], top: int, skip: Skip | None
) -> Iterator[Prediction]:
    """Answer for image files, a part of them at a time; see ``GrowingModel.predict``."""
    channels, size = channels_and_side(learner.net)

    def decoded() -> Iterator[tuple[str, Tensor]]:
        for path in image_files(places, skip):
            try:
                yield path, decode(Path(path), path, channels=channels, size=size)
            except DataError as error:
                if skip is None:
                    raise
                skip(path, error)

    images, classes = decoded(), learner.classes(name)
    while part := list(islice(images, _IMAGES_AT_ONCE)):
        logits = learner.logits(name, torch.stack([pixels for _, pixels in part]))
        best = logits.sort(dim=1, descending=True, stable=True).indices[:, :top]
        found = torch.softmax(logits, dim=1).gather(1, best)
        for (image, _), values, numbers in zip(part, found, best, strict=True):
            yield Prediction(image, tuple(classes[k] for k in numbers.tolist()), tuple(values.tolist()))


def evaluate(learner: Learner, name: str, data: Labelled) -> Evaluation:
    """Compare answers with labels."""
    images, labels = data.read(learner.classes(name))
    logits = torch.cat([learner.logits(name, chunk) for chunk in in_chunks(images)])
    right = logits.argmax(dim=1) == labels
    error = expected_calibration_error(torch.softmax(logits, dim=1).max(dim=1).values, right)
    by_class = {}
    for number, class_name in enumerate(learner.classes(name)):
        of_class = labels == number
        if of_class.any():
            by_class[class_name] = (int(of_class.sum()), int(right[of_class].sum()))
    return Evaluation(len(labels), int(right.sum()), by_class, error, counted(data.left_out))


def image_files(places: Iterable[str | Path], skip: Skip | None = None) -> Iterator[str]:
    """Files as they are; for a folder, the images in it and in the folders below, in the order of their names.

    Raises:
        DataError: for a place where nothing is, or a folder without images, unless there is a ``skip``.
    """
    for given in places:
        try:
            place = existing_path(str(given))
            if not place.is_dir():
                yield str(place)
                continue
            files = sorted(path for path, why in files_below(place) if not why or why in BROKEN)
            if not files:
                raise DataError(f"Expected images in {place} (.png, .jpg, ...); there are none.")
            yield from map(str, files)
        except (DataError, OSError, ValueError) as error:  # ValueError: a name that no file can have
            found = error if isinstance(error, DataError) else DataError(f"Expected an image at {given}; {error}.")
            if skip is None:
                raise found from error
            skip(str(given), found)
