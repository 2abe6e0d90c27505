"""Office-Home and Omniglot, from their folders of images.

Office-Home is ten tasks of 13 classes over two domains, or six tasks that grow by a class; Omniglot has an alphabet a
task.

.. [Lake2015] B. M. Lake, R. Salakhutdinov, J. B. Tenenbaum. Human-level concept learning through probabilistic program
   induction. Science 350, 2015.
.. [Venkateswara2017] H. Venkateswara, J. Eusebio, S. Chakraborty, S. Panchanathan. Deep Hashing Network for
   Unsupervised Domain Adaptation. CVPR 2017.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, final

import torch

from lasem.data.benchmarks.source import BenchmarkReader, Download, Layout, choose
from lasem.data.decode import suffixes
from lasem.data.images import FileImages
from lasem.data.split import StandardiseSettings
from lasem.data.task import Count, Task, TaskStream, child_generator, dealt, task_by_class
from lasem.errors import ConfigError, DataError
from lasem.settings import Range

_CLASSES = """
Alarm_Clock Backpack Batteries Bed Bike Bottle Bucket Calculator Calendar Candles Chair Clipboards Computer Couch
Curtains Desk_Lamp Drill Eraser Exit_Sign Fan File_Cabinet Flipflops Flowers Folder Fork Glasses Hammer Helmet Kettle
Keyboard Knives Lamp_Shade Laptop Marker Monitor Mop Mouse Mug Notebook Oven Pan Paper_Clip Pen Pencil Postit_Notes
Printer Push_Pin Radio Refrigerator Ruler Scissors Screwdriver Shelf Sink Sneakers Soda Speaker Spoon Table Telephone
ToothBrush Toys Trash_Can TV Webcam
"""
CLASSES: Final = tuple(_CLASSES.split())
"""The 65 classes, in the authors' order."""
TASK_CLASSES: Final = (
    (63, 54, 55, 59, 47, 8, 5, 56, 18, 50, 3, 57, 13),
    (62, 19, 21, 35, 64, 46, 27, 10, 39, 17, 22, 34, 30),
    (48, 15, 51, 6, 40, 31, 4, 36, 45, 41, 16, 14, 11),
    (9, 29, 1, 44, 33, 26, 25, 32, 53, 12, 43, 38, 60),
    (28, 2, 49, 37, 20, 23, 58, 24, 52, 61, 7, 0, 42),
)
"""The authors' classes of each task, as positions in ``CLASSES``; the same five lists in both domains."""
INCREMENTAL_CLASSES: Final = ("Couch", "Table", "Paper_Clip", "Clipboards", "Bucket", "Notebook", "Bed", "Trash_Can")
"""The classes in the order in which they are added; the first task has three."""

_SHARES = (0.6, 0.1, 0.3)  # training, validation and test images of each class, each rounded down
_PAGE = "https://www.hemanthdv.org/officeHomeDataset.html"

_ORDER, _IMAGES = range(2)  # what a child generator of Omniglot is for
_URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python"


def _layout(*domains: str) -> Layout:
    folders = ("OfficeHomeDataset_10072016", "OfficeHomeDataset")
    return Layout(title="Office-Home", page=_PAGE, files=domains, folders=folders)


@dataclass(frozen=True, kw_only=True)
class OfficeHomeSettings(BenchmarkReader):
    """Settings that both streams of Office-Home have, and how a class's images are divided."""

    tasks: ClassVar[tuple[tuple[int, Sequence[str]], ...]]
    """Of each task the number of its domain, as in ``layout.files``, and its classes."""

    num_tasks: int
    image_size: Annotated[int, Range(least=1, most=8192)] = 128
    """Height and width that every image is resized to; 128 in the paper."""
    images_per_class: Annotated[int, Range(least=10)] | None = None
    """Images of each class and domain that are used, of which 60 % train, 10 % validate and 30 % test; none: all."""
    scaling: Literal["unit", "train", "split"] = "unit"
    """``unit``: pixels divided by 255 and nothing else, as in the paper; ``train`` and ``split``: standardised by the
    mean and deviation of the training images, or of each split's own."""

    def read(self, folder: Path, seed: int) -> TaskStream:
        """Open the stream; images are decoded when their task is reached."""
        domains = [choose(folder, names) for names in self.layout.files]
        needed = {domains[key] / name: None for key, classes in self.tasks for name in classes}
        missing = sorted(place for place in needed if not place.is_dir())
        if missing:
            raise DataError(
                f"Expected a folder for each class of Office-Home in {missing[0].parent}; there is none for "
                f"{', '.join(place.name for place in missing[:5])}{', ...' if len(missing) > 5 else ''}. Get it from "
                f"{_PAGE} again."
            )

        def task_at(index: int) -> Task:
            key, classes = self.tasks[index]
            return task_by_class(
                f"{self.name}-{index}",
                classes,
                [
                    self._divided(domains[key] / name, child_generator(seed, key, CLASSES.index(name)))
                    for name in classes
                ],
                lambda _, files: FileImages(files, channels=3, size=self.image_size).in_memory(),
                "none" if self.scaling == "unit" else self.scaling,
            )

        return TaskStream.made_by(task_at, name=self.name, num_tasks=self.num_tasks)

    def _divided(self, folder: Path, generator: torch.Generator) -> list[list[Path]]:
        """Divide a class's images, the same for all tasks of a domain."""
        images = sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in suffixes())
        used = min(len(images), self.images_per_class or len(images))
        counts = [int(used * share) for share in _SHARES]
        if 0 in counts:
            raise DataError(
                f"Class '{folder.name}' has too few images: {used} in {folder}, of which 60, 10 and 30 % are to be "
                f"used; expected at least 10."
            )
        return dealt(images, counts, generator)


@final
@dataclass(frozen=True, kw_only=True)
class OfficeHomeReader(OfficeHomeSettings):
    """Photographs of things in an office and at home, 65 classes [Venkateswara2017]_: products, then the real world.

    Files: ``Product/CLASS/*.jpg`` and ``Real World/CLASS/*.jpg``, as the data set's archive has them. The seed divides
    each class's images; the classes of a task are the authors'.
    """

    name: ClassVar[str] = "office-home"
    layout: ClassVar[Layout] = _layout("Product", "Real World|RealWorld|Real_World")
    tasks = tuple((key, tuple(CLASSES[k] for k in numbers)) for key in range(2) for numbers in TASK_CLASSES)

    num_tasks: Annotated[int, Range(least=1, most=10)] = 10
    """Number of tasks, the first of the paper's ten."""


@final
@dataclass(frozen=True, kw_only=True)
class OfficeHomeIncrementalReader(OfficeHomeSettings):
    """Six tasks: Couch, Table and Paper Clip; then Clipboards, Bucket, Notebook, Bed and Trash Can, one at a time.

    Files: ``Product/CLASS/*.jpg``. A class's images are divided once for all tasks, by the seed: no task trains on what
    another one tests on (in the authors' code each task divides them anew).
    """

    name: ClassVar[str] = "office-home-incremental"
    layout: ClassVar[Layout] = _layout("Product")
    tasks = tuple((0, INCREMENTAL_CLASSES[: 3 + index]) for index in range(6))

    num_tasks: Annotated[int, Range(least=1, most=6)] = 6
    """Number of tasks, the first of the six."""


@final
@dataclass(frozen=True, kw_only=True)
class OmniglotReader(StandardiseSettings, BenchmarkReader):
    """1,623 characters of 50 alphabets, each drawn by 20 people ([Lake2015]_). A task tells apart one alphabet's.

    Files: ``images_background`` and ``images_evaluation``, as folders or zip files, which are unpacked there. The seed
    orders the alphabets and divides the drawings; the authors of LASEM have the sizes of the splits in their code, but
    no such experiment.
    """

    name: ClassVar[str] = "omniglot"
    layout: ClassVar[Layout] = Layout(
        title="Omniglot",
        page="https://github.com/brendenlake/omniglot (folder python)",
        files=("images_background", "images_evaluation"),
        folders=("omniglot-py", "python"),
        downloads=(
            Download(f"{_URL}/images_background.zip", "md5:68d2efa1b9178cc56df9314c21c6e718"),
            Download(f"{_URL}/images_evaluation.zip", "md5:6b91aef0f799c5bb55b94e3f2daec811"),
        ),
    )

    num_tasks: Count | None = None
    """Number of alphabets; none: all 50."""
    train_per_class: Count = 8
    """Training drawings of each character, of 20."""
    valid_per_class: Count = 2
    """Validation drawings of each character."""
    test_per_class: Count = 10
    """Test drawings of each character."""
    image_size: Count | None = 28
    """Height and width that the drawings are resized to; none: 105, as they are."""

    def read(self, folder: Path, seed: int) -> TaskStream:
        """Open the stream; drawings are decoded when their alphabet is reached."""
        alphabets: list[Path] = []
        for name in self.layout.files:
            alphabets += (folder / name).iterdir()
            if not any((folder / name).glob("*/*/*.png")):
                raise DataError(f"Expected drawings, as ALPHABET/CHARACTER/*.png, in {folder / name}; there are none.")
        alphabets = sorted((alphabet for alphabet in alphabets if alphabet.is_dir()), key=lambda place: place.name)
        num_tasks = len(alphabets) if self.num_tasks is None else self.num_tasks
        if num_tasks > len(alphabets):
            raise ConfigError(
                f"OmniglotReader.num_tasks must be at most {len(alphabets)}, the number of alphabets; got {num_tasks}."
            )
        order = torch.randperm(len(alphabets), generator=child_generator(seed, _ORDER)).tolist()

        def task_at(index: int) -> Task:
            number = order[index]
            characters = sorted(place for place in alphabets[number].iterdir() if place.is_dir())
            return task_by_class(
                f"{self.name}-{index}",
                [character.name for character in characters],
                [self._divided(place, child_generator(seed, _IMAGES, number, k)) for k, place in enumerate(characters)],
                lambda _, files: FileImages(files, channels=1, size=self.image_size).in_memory(),
                self.standardise,
            )

        return TaskStream.made_by(task_at, name=self.name, num_tasks=num_tasks)

    def _divided(self, character: Path, generator: torch.Generator) -> list[list[Path]]:
        sizes = [self.train_per_class, self.valid_per_class, self.test_per_class]
        drawings = sorted(character.glob("*.png"))
        if len(drawings) < sum(sizes):
            raise DataError(
                f"Class '{character.name}' has too few images: {len(drawings)} drawings, {sum(sizes)} are asked for. "
                f"Ask for fewer of each class."
            )
        return dealt(drawings, sizes, generator)
