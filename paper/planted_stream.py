"""A synthetic stream whose truth is known: teacher networks that share some layers, and differ in the others.

The first task's teacher is a random network. A later task's teacher has the first one's weights in the layers that are
planted as shared, and fresh random ones in the others; its head is always its own. Images are smooth random fields,
labels what the teacher answers. How often a search transfers just the layers that are truly shared can be counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

from lasem.data.images import TensorImages
from lasem.data.split import StandardiseSettings
from lasem.data.task import AbstractReader, Count, Task, TaskStream, child_generator, make_task
from lasem.errors import ConfigError
from lasem.settings import Range

_LAYER, _HEAD, _CALIBRATION, _IMAGES = range(4)  # what a child generator is for

_GRID = 4
_CHUNK = 1000
_NUM_CALIBRATION = 2000


@final
@dataclass(frozen=True, kw_only=True)
class PlantedReader(StandardiseSettings, AbstractReader):
    """Grey images and the answers of teachers, convolutional networks of 3x3 kernels as deep as ``truth`` says.

    For the truth to be about the layers of the network that learns, that has to be as deep: the default fits ``--net
    digits``, which is chosen for images of up to 16 pixels.
    """

    name: ClassVar[str] = "planted"

    num_tasks: Count = 6
    """Number of tasks."""
    truth: tuple[str, ...] = ("TTSS", "SSTT", "TSTS", "TTTT", "SSSS")
    """Which layers of a later task's teacher are the first one's (T) and which are its own (S), input first; the tasks
    after the first take these in turn."""
    num_classes: Annotated[int, Range(least=2)] = 4
    """Answers of each task."""
    train_per_class: Count = 20
    """Training images of each class; a larger number keeps those of a smaller one and adds others."""
    valid_per_class: Count = 10
    """Validation images of each class."""
    test_per_class: Count = 50
    """Test images of each class, the same whatever is trained on."""
    clearest: Annotated[float, Range(above=0, most=1)] = 0.3
    """Share of all images that become data, those whose two best answers are furthest apart; in (0, 1]."""
    image_size: Annotated[int, Range(least=_GRID, most=64)] = 8
    """Height and width of the images."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "truth", tuple(self.truth))
        super().__post_init__()
        depths = {len(configuration) for configuration in self.truth}
        if len(depths) != 1 or 0 in depths or any(set(configuration) - {"T", "S"} for configuration in self.truth):
            raise ConfigError(
                f"PlantedReader.truth must hold configurations of one depth, such as TTSS,SSTT; got "
                f"{','.join(self.truth) or 'none'}."
            )

    @property
    def depth(self) -> int:
        """Layers of a teacher before its head."""
        return len(self.truth[0])

    def truth_of(self, index: int) -> str | None:
        """Which layers a task truly shares; None for the first, which nothing precedes."""
        return self.truth[(index - 1) % len(self.truth)] if index > 0 else None

    def open(self, seed: int) -> TaskStream:
        return TaskStream.made_by(lambda index: self._task(seed, index), name=self.name, num_tasks=self.num_tasks)

    def teacher(self, seed: int, index: int) -> list[Tensor]:
        """A task's kernels, input first, each of shape (out, in, 3, 3), and the matrix of its head."""
        truth, weights, inputs = self.truth_of(index) or "T" * self.depth, [], 1
        for layer, kind in enumerate(truth):
            outputs = 8 * 2 ** (layer // 2)
            generator = child_generator(seed, _LAYER, 0 if kind == "T" else index, layer)
            scale = math.sqrt(2 / (9 * inputs))
            weights.append(torch.randn(outputs, inputs, 3, 3, generator=generator) * scale)
            inputs = outputs
        side = self.image_size
        for _ in range(self.depth // 2):
            side = -(-side // 2)
        head = torch.randn(self.num_classes, inputs * side**2, generator=child_generator(seed, _HEAD, index))
        return [*weights, head]

    def _task(self, seed: int, index: int) -> Task:
        weights = self.teacher(seed, index)
        known = answers(weights, self._images(_NUM_CALIBRATION, child_generator(seed, _CALIBRATION)))
        mean, std = known.mean(dim=0), known.std(dim=0).clamp_min(1e-6)
        least = torch.quantile(_margins((known - mean) / std), 1 - self.clearest)

        counts = (self.test_per_class, self.valid_per_class, self.train_per_class)  # so that test images stay the same
        found: list[list[Tensor]] = [[] for _ in range(self.num_classes)]
        generator = child_generator(seed, _IMAGES, index)
        while min(map(len, found)) < sum(counts):
            images = self._images(_CHUNK, generator)
            logits = (answers(weights, images) - mean) / std
            for position in torch.nonzero(_margins(logits) >= least).flatten().tolist():
                found[int(logits[position].argmax())].append(images[position])
        parts, start = [], 0
        for count in counts:
            images = torch.stack([image for of_class in found for image in of_class[start : start + count]])
            parts.append((TensorImages(images), torch.arange(self.num_classes).repeat_interleave(count)))
            start += count
        test, valid, train = parts
        classes = tuple(f"answer-{number}" for number in range(self.num_classes))
        return make_task(f"{self.name}-{index}", classes, [train, valid, test], self.standardise)

    def _images(self, num: int, generator: torch.Generator) -> Tensor:
        """Smooth fields and a little noise, (num, 1, size, size)."""
        size = (self.image_size, self.image_size)
        fields = F.interpolate(torch.randn(num, 1, _GRID, _GRID, generator=generator), size, mode="bilinear")
        return fields + 0.1 * torch.randn(num, 1, *size, generator=generator)


def answers(teacher: list[Tensor], images: Tensor) -> Tensor:
    """What a teacher says of images (N, 1, height, width): numbers of shape (N, classes)."""
    *kernels, head = teacher
    x = images
    for layer, kernel in enumerate(kernels):
        x = F.relu(F.conv2d(x, kernel, padding=1))
        if layer % 2 == 1:
            x = F.max_pool2d(x, 2, ceil_mode=True)
    return x.flatten(1) @ head.T


def _margins(logits: Tensor) -> Tensor:
    """How far the best answer is above the next one."""
    best = logits.topk(2, dim=1).values
    return best[:, 0] - best[:, 1]
