"""A reader of tensors, and what every reader of files has in common."""

import os
import re
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, final

import torch

from lasem.data.decode import Channels, Interpolation, Resize
from lasem.data.images import Scale, SelectedImages, TensorImages, on_one_scale
from lasem.data.labelled import CutSettings, Labelled
from lasem.data.split import Part
from lasem.data.task import AbstractReader, TaskStream, distinct, pair
from lasem.errors import DataError, nearest
from lasem.settings import Range

_NAMES = {
    Part.TRAIN: "train training trn trainval",
    Part.VALID: "valid validation val dev vld",
    Part.TEST: "test testing eval evaluation tst tests holdout",
}
SPLIT_NAMES: Final = {name: part for part, names in _NAMES.items() for name in names.split()}
"""Names of splits in files and folders."""

_KIND = "(?:(?:data)?sets?|data|images?|imgs?|pictures?|photos?|pics?|splits?|folders?|samples?|files?)"
_SPLIT = re.compile(f"({'|'.join(SPLIT_NAMES)}){_KIND}?")


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class TensorReader(CutSettings, AbstractReader):
    """Cuts tensors or arrays into tasks.

    Images are (N, channels, height, width), or (N, height, width) for grey, uint8 or floating; labels (N,), integers.
    """

    name: ClassVar[str] = "tensors"

    images: Any
    """Training images; validation and test images are taken from them if there are no others."""
    labels: Any
    """Their labels."""
    valid_images: Any = None
    """Validation images, if they are apart."""
    valid_labels: Any = None
    """Their labels."""
    test_images: Any = None
    """Test images, if they are apart."""
    test_labels: Any = None
    """Their labels."""
    class_names: Sequence[str] | None = None
    """The name of each class, if labels are positions in it; None: labels may be any integers, and name themselves."""
    stream_name: str = "tensors"
    """Task names begin with it."""
    scale: Scale = "auto"
    """The value of white in the images, as in ``Task.from_tensors``."""

    def open(self, seed: int) -> TaskStream:
        images, labels, parts = [], [], []
        for part, some, their_labels in (
            (Part.TRAIN, self.images, self.labels),
            (Part.VALID, self.valid_images, self.valid_labels),
            (Part.TEST, self.test_images, self.test_labels),
        ):
            if part != Part.TRAIN and some is None and their_labels is None:
                continue
            if some is None or their_labels is None:
                raise DataError(f"Expected images and labels for split '{part.word}'; got one without the other.")
            checked, numbers = pair(some, their_labels, f"split '{part.word}'")
            images.append(checked)
            labels.append(numbers)
            parts.append(torch.full_like(numbers, part))
        if len({of_part.shape for of_part in images}) > 1:
            raise DataError(
                "Expected the images of all splits to be of one shape (channels, height, width); got "
                f"{', '.join(str(of_part.shape) for of_part in images)}."
            )
        scaled = on_one_scale(images, [f"split '{Part(int(of_part[:1].sum())).word}'" for of_part in parts], self.scale)
        all_labels, class_names = torch.cat(labels), self.class_names
        if class_names is None:
            known = distinct(all_labels, "labels")
            all_labels = torch.searchsorted(known, all_labels)
            class_names = [str(number) for number in known.tolist()]
        joined = TensorImages(torch.cat([of_part.tensor for of_part in scaled]), scaled[0].scale or "none")
        data = Labelled(all_labels, torch.cat(parts), class_names, lambda used: SelectedImages(joined, used))
        return data.disjoint(self, seed, self.stream_name)


@dataclass(frozen=True, kw_only=True)
class FileReader(CutSettings, AbstractReader):
    """Settings of readers of files, and how the files become tasks."""

    path: str
    """A file or folder."""
    image_size: Annotated[int, Range(least=1, most=8192)] | None = None
    """Height and width that every image is resized to, whatever its sides were; None: all must be equally large."""
    crop: Annotated[float, Range(above=0, most=1)] | None = None
    """With ``image_size``: use a square in the middle only, this share of the image's shorter side, as pretrained
    networks expect it; None: stretch the whole image."""
    interpolation: Interpolation = "bilinear"
    """With ``image_size``: how pixels are resized."""
    channels: Channels = 3
    """3 for colour, 1 for grey; images are converted."""
    skip_damaged: bool = False
    """Leave out images that cannot be decoded, which are all decoded once to find them; else they are an error."""

    @property
    def resize(self) -> Resize | None:
        """How every image is resized, if it is."""
        side = self.image_size
        return None if side is None else Resize(side=side, crop=self.crop, interpolation=self.interpolation)

    @abstractmethod
    def find(self) -> Labelled:
        """Find every image's class and split, without decoding any."""

    def labelled(self) -> Labelled:
        """Find every image's class and split; decode them only if damaged ones are left out."""
        data = self.find()
        return data.undamaged() if self.skip_damaged else data

    def open(self, seed: int) -> TaskStream:
        """Open the stream; it and its tasks are named after the file or folder."""
        return self.labelled().disjoint(self, seed, stream_name(self.path))


def split_of(name: str) -> tuple[Part, tuple[str, ...]] | None:
    """Return the split that a folder's name speaks of and the name's other words: ``seg_train`` is (TRAIN, (seg,)).

    Words such as "images" and "set" do not count. None: the name speaks of no split, or of several.
    """
    words = re.findall(r"[^\W\d_]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())
    parts = [SPLIT_NAMES[match[1]] for word in words if (match := _SPLIT.fullmatch(word))]
    others = (word for word in words if not _SPLIT.fullmatch(word) and not re.fullmatch(_KIND, word))
    return (parts[0], tuple(others)) if len(parts) == 1 else None


def stream_name(path: str) -> str:
    """Return what a stream is called that is read from a file or a folder."""
    full = Path(os.path.abspath(existing_path(path)))  # not resolve(): a link is called by its own name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", full.name if full.is_dir() else full.stem)[:80] or "stream"


def existing_path(path: str) -> Path:
    """Return the path of a file or folder, ``~`` expanded if there is none of that very name; DataError if none is."""
    place = Path(path)
    try:
        if not os.path.lexists(place):
            with suppress(RuntimeError):  # no such user
                place = place.expanduser()
        if not place.exists():
            if place.is_symlink():
                raise DataError(f"Expected a file or folder at {place}, but it is a link that leads nowhere.")
            there = sorted(entry.name for entry in place.parent.iterdir()) if place.parent.is_dir() else []
            raise DataError(f"Expected a file or folder at {place}, but there is none.{nearest(place.name, there)}")
        if not place.is_dir() and not place.is_file():
            raise DataError(f"Expected a file or folder at {place}, but it is a pipe or a device.")
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise DataError(f"Expected a file or folder at {path}; {error}.") from error
    return place
