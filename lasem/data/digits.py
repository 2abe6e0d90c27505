"""Scikit-learn's handwritten digits as a stream, with tasks that differ at low and at high levels.

In the spirit of the paper's STL-10 stream. At the high level, each task tells apart some of the ten digits, drawn at
random. At the low level, each task has a style of its own (``DigitStyle``): how far its images are turned, their
contrast or inversion, and Gaussian noise. So some tasks share what the first layers see, some what the last ones tell
apart.
"""

from dataclasses import dataclass
from functools import cache
from typing import Annotated, ClassVar, final

import torch
from torch import Tensor

from lasem.data.images import TensorImages
from lasem.data.labelled import Labelled
from lasem.data.split import Part, StandardiseSettings
from lasem.data.task import AbstractReader, Count, Task, TaskStream, child_generator, task_by_class
from lasem.settings import Range

_POOLS, _CLASSES, _STYLE, _IMAGES, _NOISE = range(5)  # what a child generator is for

_POOL_SHARES = (0.6, 0.15, 0.25)


@final
@dataclass(frozen=True, kw_only=True)
class DigitStyle:
    """How a task changes its images, in this order; images stay uint8."""

    quarter_turns: int = 0
    """Counterclockwise: 0, 1, 2 or 3."""
    contrast: float = 1.0
    """Factor on the distance from middle grey: 1, 0.5, or the same inverted, -1, -0.5."""
    noise_mean: float = 0.0
    """Mean of the Gaussian noise of each pixel: -0.2, -0.1, 0 or 0.1 of the range from black to white."""
    noise_std: float = 0.0
    """Deviation of that noise: 0, 0.1, 0.2 or 0.3 of the range."""

    @classmethod
    def drawn(cls, generator: torch.Generator) -> "DigitStyle":
        """Draw each of the four, independently and uniformly from its values."""
        turns, contrast, mean, std = torch.randint(4, (4,), generator=generator).tolist()
        return cls(
            quarter_turns=turns,
            contrast=(1.0, 0.5, -0.5, -1.0)[contrast],
            noise_mean=(-0.2, -0.1, 0.0, 0.1)[mean],
            noise_std=(0.0, 0.1, 0.2, 0.3)[std],
        )

    def apply(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Change uint8 images (N, 1, height, width); the noise comes from ``generator``."""
        values = torch.rot90(images, self.quarter_turns, dims=(2, 3)).to(torch.float64) / 255
        values = 0.5 + self.contrast * (values - 0.5)
        noise = torch.randn(values.shape, generator=generator, dtype=torch.float64)
        values = values + self.noise_mean + self.noise_std * noise
        return (values.clamp(0, 1) * 255).round().to(torch.uint8)


@final
@dataclass(frozen=True, kw_only=True)
class DigitsReader(StandardiseSettings, AbstractReader):
    """1797 grey images of 8x8 pixels that come with scikit-learn; needs no download.

    By the seed, the images of each digit are first divided into 60 % for training, 15 % for validation and 25 % for
    testing, the same for all tasks: no task trains on an image that another one tests on. Each task then draws its
    digits, its style, and its images. The first task's images are not changed.
    """

    name: ClassVar[str] = "digits"

    num_tasks: Count = 6
    """Number of tasks; any number, for tasks may have digits in common."""
    classes_per_task: Annotated[int, Range(least=2, most=10)] = 5
    """Digits that each task tells apart; from 2 to 10."""
    train_per_class: Annotated[int, Range(least=1, most=104)] = 20
    """Training images of each digit; at most 104."""
    valid_per_class: Annotated[int, Range(least=1, most=26)] = 10
    """Validation images of each digit; at most 26."""
    test_per_class: Annotated[int, Range(least=1, most=44)] | None = None
    """Test images of each digit, at most 44; None: all, 44 or more."""

    def open(self, seed: int) -> TaskStream:
        images, labels = _load()
        pools = self._pools(labels, seed)
        counts = (self.train_per_class, self.valid_per_class, self.test_per_class)

        def task_at(index: int) -> Task:
            digits = torch.randperm(10, generator=child_generator(seed, _CLASSES, index))[: self.classes_per_task]
            style = self.style(seed, index)
            draws = [child_generator(seed, _IMAGES, index, part) for part in Part]

            def drawn(pool: Tensor, part: Part) -> list[int]:
                return pool[torch.randperm(len(pool), generator=draws[part])][: counts[part]].tolist()

            def take(part: Part, positions: list[int]) -> TensorImages:
                return TensorImages(style.apply(images[positions], child_generator(seed, _NOISE, index, part)))

            classes = digits.sort().values.tolist()
            chosen = [[drawn(pools[digit][part], part) for part in Part] for digit in classes]
            return task_by_class(f"{self.name}-{index}", list(map(str, classes)), chosen, take, self.standardise)

        return TaskStream.made_by(task_at, name=self.name, num_tasks=self.num_tasks)

    def style(self, seed: int, index: int) -> DigitStyle:
        """Return the style of a task: how its images differ from other tasks'."""
        return DigitStyle() if index == 0 else DigitStyle.drawn(child_generator(seed, _STYLE, index))

    def _pools(self, labels: Tensor, seed: int) -> list[tuple[Tensor, ...]]:
        """Divide each digit's positions in the data into training, validation and test."""
        pools = []
        for digit in range(10):
            positions = torch.nonzero(labels == digit).flatten()
            shuffled = positions[torch.randperm(len(positions), generator=child_generator(seed, _POOLS, digit))]
            num_train, num_valid = (round(share * len(positions)) for share in _POOL_SHARES[:2])
            pools.append(torch.split(shuffled, [num_train, num_valid, len(positions) - num_train - num_valid]))
        return pools


def labelled_digits() -> Labelled:
    """Return all images as they are, none of them divided from the others."""
    images, labels = _load()
    names = [str(digit) for digit in range(10)]
    return Labelled(labels, torch.zeros_like(labels), names, lambda used: TensorImages(images[used]), "the digits")


@cache
def _load() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    levels = torch.from_numpy(digits.images)  # whole numbers from 0 to 16
    return (levels * 255 / 16).round().to(torch.uint8).unsqueeze(1), torch.from_numpy(digits.target).to(torch.int64)
