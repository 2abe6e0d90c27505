"""A stream of tensors or arrays that are in memory already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from lasem.data.cut import PARTS, TRAIN, CutSettings
from lasem.data.images import SelectedImages, TensorImages
from lasem.data.labelled import Labelled
from lasem.data.stream import AbstractReader, TaskStream
from lasem.data.task import pair
from lasem.errors import DataError


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class TensorReader(CutSettings, AbstractReader):
    """Cuts tensors or arrays into tasks.

    Images are (N, channels, height, width), or (N, height, width) for grey, uint8 or floating; labels (N,), integers.
    """

    name: ClassVar[str] = "tensors"

    images: Any
    """Training images; validation and test images are taken from them where none are given."""
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

    def open(self, seed: int) -> TaskStream:
        """See AbstractReader. Tensors of one type and shape that come in several splits are joined into one."""
        given = (
            (self.images, self.labels),
            (self.valid_images, self.valid_labels),
            (self.test_images, self.test_labels),
        )
        images: list[Tensor] = []
        labels: list[Tensor] = []
        parts: list[Tensor] = []
        for part, (some, their_labels) in enumerate(given):
            if part != TRAIN and some is None and their_labels is None:
                continue
            if some is None or their_labels is None:
                raise DataError(f"Expected images and labels for split '{PARTS[part]}'; got one without the other.")
            checked, numbers = pair(some, their_labels, f"split '{PARTS[part]}'")
            images.append(checked.tensor)
            labels.append(numbers)
            parts.append(torch.full_like(numbers, part))
        if len({(of_part.dtype, of_part.shape[1:]) for of_part in images}) > 1:
            raise DataError(
                "Expected the images of all splits to be of one type and shape (N, channels, height, width); got "
                f"{', '.join(f'{of_part.dtype} {tuple(of_part.shape)}' for of_part in images)}."
            )
        all_labels, class_names = torch.cat(labels), self.class_names
        if class_names is None:
            known, all_labels = torch.unique(all_labels, return_inverse=True)
            class_names = [str(number) for number in known.tolist()]
        joined = TensorImages(images[0] if len(images) == 1 else torch.cat(images))
        found = Labelled(all_labels, torch.cat(parts), class_names, lambda used: SelectedImages(joined, used))
        return found.disjoint(self, seed, self.stream_name)
