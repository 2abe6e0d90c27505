"""A growing model's answers: about image files, and about itself."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, Literal, final

import torch
from torch import Tensor

from lasem.data.decode import Channels, Resize, decode
from lasem.data.folders import BROKEN, files_below
from lasem.data.images import TensorImages, in_chunks
from lasem.data.labelled import Labelled, counted
from lasem.data.readers import existing_path
from lasem.data.split import Part
from lasem.data.tokens import said_of_cut
from lasem.errors import ConfigError, DataError
from lasem.learner.learner import Learner
from lasem.methods.model import Parts
from lasem.nets import AbstractNet
from lasem.space import layers_in_words
from lasem.training.calibration import Bin, calibration_bins, expected_calibration_error

Skip = Callable[[str, DataError], None]
"""Called with a file that is no image, or a folder that cannot be read, and why."""

Question = tuple[str | Path | Tensor, Sequence[str]]
"""An image file, a folder, a decoded image or a text, and the tasks that are asked about it."""

_IMAGES_AT_ONCE = 64


@final
@dataclass(frozen=True)
class Prediction:
    """The answer of one task for one image: the likeliest classes first."""

    image: str
    """Its file; or the text. Empty for a decoded image."""
    task: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]

    @property
    def likeliest(self) -> list[dict[str, Any]]:
        """The classes with their probabilities, as JSON has them."""
        pairs = zip(self.classes, self.probabilities, strict=True)
        return [{"class": name, "probability": round(p, 6)} for name, p in pairs]


@final
@dataclass(frozen=True, kw_only=True)
class Mistake:
    """An image whose answer is not its class."""

    image: str
    """What a person calls it: its file, its row in a table, or the text that it is."""
    label: str
    """Its class."""
    answer: str
    """The likeliest class."""
    probability: float
    """Of the answer."""
    picture: Tensor | None = field(default=None, repr=False, compare=False)
    """uint8 (channels, height, width), as the network gets it; None for texts, and unless it was asked for."""


@final
@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Answers to a task's labelled images."""

    classes: tuple[str, ...]
    """The task's."""
    confusion: tuple[tuple[int, ...], ...]
    """Images of each class (rows) by their answer (columns), both in the order of ``classes``."""
    mistakes: tuple[Mistake, ...]
    """The surest first."""
    calibration: tuple[Bin, ...]
    """15 bins of the answers' probability."""
    left_out: tuple[str, ...]
    """What was not used of the place that the images come from, as in Task."""

    @property
    def num_images(self) -> int:
        """All images."""
        return sum(map(sum, self.confusion))

    @property
    def num_right(self) -> int:
        """Those that are answered rightly."""
        return self.num_images - len(self.mistakes)

    @property
    def accuracy(self) -> float:
        """In [0, 1]."""
        return self.num_right / self.num_images

    @property
    def calibration_error(self) -> float:
        """How far probabilities are from the share of right answers (``expected_calibration_error``), in [0, 1]."""
        return expected_calibration_error(self.calibration)

    @property
    def by_class(self) -> dict[str, tuple[int, int]]:
        """For each class that has images: how many, and how many rightly answered."""
        rows = enumerate(zip(self.classes, self.confusion, strict=True))
        return {name: (sum(row), row[number]) for number, (name, row) in rows if sum(row)}

    @property
    def confused(self) -> list[tuple[str, str, int]]:
        """Class, answer and number of images of each kind of mistake, the most frequent first."""
        pairs = Counter((mistake.label, mistake.answer) for mistake in self.mistakes)
        place = {name: number for number, name in enumerate(self.classes)}
        ordered = sorted(pairs, key=lambda pair: (-pairs[pair], place[pair[0]], place[pair[1]]))
        return [(*pair, pairs[pair]) for pair in ordered]


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
    source: str | None
    """The earlier task whose layers it uses as they are; None if there is none."""
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
    prior: tuple[float, ...]
    """How probable it is that a new task transfers each layer, as tasks so far say (``lasem.search.evidence``); empty
    if none was searched by evidence."""
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
    reads: Literal["images", "texts"]
    """What the network takes."""
    unfinished: str | None
    """Task whose learning was interrupted and will go on."""

    def to_plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)


def reading(net: AbstractNet) -> tuple[Channels, Resize]:
    """Return the channels of a network's images, and how files become such; ConfigError if image files cannot."""
    channels, height, width = net.image_shape
    if channels not in (1, 3) or height != width:
        raise ConfigError(
            f"Image files are read as squares, grey or in colour; the network takes images of shape {net.image_shape} "
            f"(channels, height, width). Use Learner.load and give it tensors."
        )
    return (1 if channels == 1 else 3), net.resize()


def decoder(net: AbstractNet) -> Callable[[bytes, str], Tensor]:
    """Return a function that makes a network's image of a file's bytes; the text is what an error calls it."""
    channels, size = reading(net)
    return partial(decode, channels=channels, size=size)


def reads(net: AbstractNet) -> Literal["images", "texts"]:
    """Return what a network takes."""
    return "images" if net.vocabulary is None else "texts"


def layer_names(net: AbstractNet) -> tuple[str, ...]:
    """Return the names of the layers that may be transferred; empty where they have numbers only."""
    return tuple(net.block_names) if all(net.block_names) else ()


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
        source=learner.method.source(learner.net, learner.model, name),
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
    learner: Learner, questions: Iterable[Question], top: int, skip: Skip | None, note: Callable[[str], None]
) -> Iterator[Prediction]:
    """Answer for image files or texts, a part of them at a time; see ``GrowingModel.predict_many``."""
    net, vocabulary, num, num_cut = learner.net, learner.net.vocabulary, 0, 0
    if vocabulary is None:
        how = reading(net)
        asked = ((image, names) for place, names in questions for image in _images(place, skip, note))
    else:
        asked = ((str(text), names) for text, names in questions)
    while part := list(islice(asked, _IMAGES_AT_ONCE)):
        images = list(dict.fromkeys(image for image, _ in part))
        if vocabulary is None:
            read = dict(_decoded(images, *how, skip))
        else:
            ids, cut = vocabulary.read(list(map(str, images)), net.image_shape[2])
            read, num, num_cut = dict(zip(images, ids, strict=True)), num + len(images), num_cut + cut
        answered = [(image, name) for image, names in part if image in read for name in names]
        position, wanted = {image: k for k, image in enumerate(read)}, dict[str, list[int]]()
        for image, name in answered:
            wanted.setdefault(name, []).append(position[image])
        found = learner.logits_many(torch.stack(list(read.values())), wanted) if wanted else {}
        best = {name: _likeliest(logits, learner.classes(name), top) for name, logits in found.items()}
        for image, name in answered:
            yield Prediction(image if isinstance(image, str) else "", name, *next(best[name]))
    for said in said_of_cut(num_cut, num, net.image_shape[2]) if num_cut else ():
        note(f"Left out: {said}.")


def _images(place: str | Path | Tensor, skip: Skip | None, note: Callable[[str], None]) -> Iterable[str | Tensor]:
    return (place,) if isinstance(place, Tensor) else image_files([place], skip, note)


def _decoded(
    images: Iterable[str | Tensor], channels: Channels, size: Resize, skip: Skip | None
) -> Iterator[tuple[str | Tensor, Tensor]]:
    for path in images:
        try:
            yield path, path if isinstance(path, Tensor) else decode(Path(path), path, channels=channels, size=size)
        except DataError as error:
            if skip is None:
                raise
            skip(str(path), error)


def _likeliest(logits: Tensor, classes: Sequence[str], top: int) -> Iterator[tuple[tuple[str, ...], tuple[float, ...]]]:
    best = logits.sort(dim=1, descending=True, stable=True).indices[:, :top]
    found = torch.softmax(logits, dim=1).gather(1, best)
    for values, numbers in zip(found.tolist(), best.tolist(), strict=True):
        yield tuple(classes[k] for k in numbers), tuple(values)


def evaluate(learner: Learner, name: str, data: Labelled, pictures: int) -> Evaluation:
    """Compare answers with labels; see ``GrowingModel.evaluate``."""
    classes = learner.classes(name)
    images, labels = data.read(classes)
    left_out = counted(data.left_out)
    if images.texts is not None:
        ids, cut = learner.tokens(images.texts)
        images, left_out = TensorImages(ids, "none"), (*left_out, *cut)
    logits = torch.cat([learner.logits(name, chunk) for chunk in in_chunks(images)])
    answers = logits.argmax(dim=1)
    sure = torch.softmax(logits, dim=1).gather(1, answers[:, None])[:, 0]
    confusion = torch.bincount(labels * len(classes) + answers, minlength=len(classes) ** 2).view(-1, len(classes))
    wrong = (labels != answers).nonzero()[:, 0]
    wrong = wrong[sure[wrong].argsort(descending=True, stable=True)]
    pictured = wrong[: pictures if learner.net.vocabulary is None else 0]
    shown = list(images.take(pictured)) if len(pictured) else []
    found = zip(*(values[wrong].tolist() for values in (labels, answers, sure)), strict=True)
    return Evaluation(
        classes=classes,
        confusion=tuple(map(tuple, confusion.tolist())),
        mistakes=tuple(
            Mistake(
                image=data.name_of(position),
                label=classes[label],
                answer=classes[answer],
                probability=probability,
                picture=picture,
            )
            for position, (label, answer, probability), picture in zip_longest(wrong.tolist(), found, shown)
        ),
        calibration=calibration_bins(sure, labels == answers),
        left_out=left_out,
    )


def image_files(
    places: Iterable[str | Path], skip: Skip | None = None, note: Callable[[str], None] = lambda _: None
) -> Iterator[str]:
    """Files as they are; for a folder, the images in it and in the folders below, in the order of their names.

    ``note`` is called with what of a folder is left out. DataError for a place where nothing is, or a folder without
    images, unless there is a ``skip``.
    """
    lost = []

    def pass_over(where: str | Path, error: Exception) -> None:
        said = error if isinstance(error, DataError) else DataError(f"Expected images at {where}; {error}.")
        if skip is None:
            raise said from error
        lost.append(where)
        skip(str(where), said)

    for given in places:
        try:
            place, num_lost = existing_path(str(given)), len(lost)
            if not place.is_dir():
                yield str(place)
                continue
            found = list(files_below(place, pass_over))
            files = sorted(path for path, why in found if not why or why in BROKEN)
            if left_out := counted((Part.TEST, why) for _, why in found if why and why not in BROKEN):
                note(f"Left out of {place}: {', '.join(left_out)}.")
            if not files and len(lost) == num_lost:
                raise DataError(f"Expected images in {place} (.png, .jpg, ...); there are none.")
            yield from map(str, files)
        except (DataError, OSError, ValueError) as error:  # ValueError: a name that no file can have
            pass_over(given, error)
