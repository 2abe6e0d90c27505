"""Office-Home's folders: ``DOMAIN/CLASS/00001.jpg``, and how a class's images are parted.

.. [Venkateswara2017] H. Venkateswara, J. Eusebio, S. Chakraborty, S. Panchanathan. Deep Hashing Network for
   Unsupervised Domain Adaptation. CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import torch

from lasem.data.benchmarks.source import BenchmarkSettings, Layout
from lasem.data.benchmarks.stand_in import stand_in_images
from lasem.data.checks import check_count
from lasem.data.folders import SUFFIXES
from lasem.data.images import FileImages, TensorImages
from lasem.data.seeds import child_generator
from lasem.data.split import make_splits
from lasem.data.task import Task
from lasem.errors import DataError, check_choice

_CLASSES = """
Alarm_Clock Backpack Batteries Bed Bike Bottle Bucket Calculator Calendar Candles Chair Clipboards Computer Couch
Curtains Desk_Lamp Drill Eraser Exit_Sign Fan File_Cabinet Flipflops Flowers Folder Fork Glasses Hammer Helmet Kettle
Keyboard Knives Lamp_Shade Laptop Marker Monitor Mop Mouse Mug Notebook Oven Pan Paper_Clip Pen Pencil Postit_Notes
Printer Push_Pin Radio Refrigerator Ruler Scissors Screwdriver Shelf Sink Sneakers Soda Speaker Spoon Table Telephone
ToothBrush Toys Trash_Can TV Webcam
"""
CLASSES: Final = tuple(_CLASSES.split())
"""The 65 classes, in the authors' order."""
PRODUCT: Final = "Product"
REAL_WORLD: Final = "Real World|RealWorld|Real_World"
SHARES: Final = (0.6, 0.1, 0.3)
"""Training, validation and test images of each class, each rounded down."""

_TITLE, _PAGE = "Office-Home", "https://www.hemanthdv.org/officeHomeDataset.html"
_FOLDERS = ("OfficeHomeDataset_10072016", "OfficeHomeDataset")


def layout(*domains: str) -> Layout:
    """The folders of some domains."""
    return Layout(title=_TITLE, files=domains, folders=_FOLDERS, page=_PAGE)


@dataclass(frozen=True, kw_only=True)
class OfficeHomeSettings(BenchmarkSettings):
    """What both streams of Office-Home have in common."""

    image_size: int = 128
    """Height and width that every image is resized to; 128 in the paper."""
    images_per_class: int | None = None
    """Images of each class and domain that are used, of which 60 % train, 10 % validate and 30 % test; none: all."""
    scaling: Literal["unit", "train", "split"] = "unit"
    """``unit``: pixels divided by 255 and nothing else, as in the paper; ``train`` and ``split``: standardised by the
    mean and deviation of the training images, or of each split's own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        kind = type(self).__name__
        check_count(f"{kind}.image_size", self.image_size, least=1, most=8192)
        if self.images_per_class is not None:
            check_count(f"{kind}.images_per_class", self.images_per_class, least=10)
        check_choice(f"{kind}.scaling", self.scaling, ("unit", "train", "split"))

    def task(self, name: str, domain: Path, classes: Sequence[str], seed: int, key: int) -> Task:
        """Read one task's images, which then wait in memory.

        Args:
            name: of the task.
            domain: folder that holds the classes' folders.
            classes: of the task.
            seed: the run's.
            key: number of the domain; a class's images are parted the same in every task of a domain.
        """
        files: list[list[Path]] = [[], [], []]
        labels: list[list[int]] = [[], [], []]
        for label, class_name in enumerate(classes):
            found = _images(domain / class_name)
            generator = child_generator(seed, key, CLASSES.index(class_name))
            order = torch.randperm(len(found), generator=generator).tolist()[: self.images_per_class]
            counts = [int(len(order) * share) for share in SHARES]
            if 0 in counts:
                raise DataError(
                    f"Class '{class_name}' has too few images: {len(order)} in {domain / class_name}, of which 60, "
                    f"10 and 30 % are to be used; expected at least 10."
                )
            start = 0
            for part, count in enumerate(counts):
                files[part] += [found[number] for number in order[start : start + count]]
                labels[part] += [label] * count
                start += count
        parts = []
        for of_part, their_labels in zip(files, labels, strict=True):
            images = FileImages(of_part, channels=3, size=self.image_size)
            parts.append((TensorImages(images.take(torch.arange(len(images)))), torch.tensor(their_labels)))
        standardise = "none" if self.scaling == "unit" else self.scaling
        return Task(name, tuple(classes), *make_splits(parts[0], parts[1], parts[2], standardise))


def check_class_folders(domain: Path, classes: Sequence[str]) -> None:
    """Raise DataError if a class has no folder, before anything is learned."""
    missing = [name for name in classes if not (domain / name).is_dir()]
    if missing:
        raise DataError(
            f"Expected a folder for each class of {_TITLE} in {domain}; there is none for {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}. Get it from {_PAGE} again."
        )


def write_domain(folder: Path, classes: Sequence[str], part: int) -> None:
    """Write ten made-up images of each class, of several sizes."""
    from PIL import Image

    for name in classes:
        (folder / name).mkdir(parents=True)
        images = stand_in_images(10, (3, 32, 40), label=CLASSES.index(name), part=part)
        for number, pixels in enumerate(images.transpose(0, 2, 3, 1), start=1):
            cut = pixels[:, : 40 - number]  # photographs have sides of their own
            Image.fromarray(cut).save(folder / name / f"{number:05d}.jpg", quality=95)


def _images(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in SUFFIXES)
