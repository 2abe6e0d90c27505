"""STL-10 as twenty tasks of three classes, each with noise and an order of channels of its own.

.. [Coates2011] A. Coates, H. Lee, A. Y. Ng. An Analysis of Single Layer Networks in Unsupervised Feature Learning.
   AISTATS 2011.
"""

from dataclasses import dataclass, replace
from itertools import combinations
from math import ceil, comb
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lasem.data.benchmarks.source import BenchmarkReader, Download, Layout
from lasem.data.images import TensorImages
from lasem.data.split import Part
from lasem.data.task import Count, Task, TaskStream, child_generator, task_by_class
from lasem.errors import DataError
from lasem.settings import Range

NUM_CLASSES: Final = 10
SHAPE: Final = (3, 96, 96)
NOISE_STEP: Final = 0.025
"""Noise's mean is -2, -1, 0 or 1 of these, its deviation 0 or 1; the range from black to white is 1."""

_CLASSES, _STYLE, _IMAGES, _NOISE = range(4)  # what a child generator is for


@final
@dataclass(frozen=True, kw_only=True)
class Style:
    """How a task changes its images."""

    noise_mean: float
    """Mean of the Gaussian noise of each value, in the range from black to white."""
    noise_std: float
    """Deviation of that noise."""
    channels: tuple[int, ...]
    """The channel that stands first, second and third."""

    def apply(self, images: Tensor, generator: torch.Generator, *, rounded: bool = True) -> Tensor:
        """Add noise to uint8 images (N, 3, height, width), clip it, and exchange channels.

        The result is uint8 if it is rounded, else float32 from 0 to 1.
        """
        if self.noise_mean or self.noise_std or not rounded:
            noise = torch.randn(images.shape, generator=generator, dtype=torch.float32)
            values = (images.to(torch.float32) / 255 + (self.noise_mean + self.noise_std * noise)).clamp(0, 1)
            images = (values * 255).round().to(torch.uint8) if rounded else values
        return images[:, list(self.channels)]


@final
@dataclass(frozen=True, kw_only=True)
class Stl10Reader(BenchmarkReader):
    """13,000 labelled colour images of 96x96 pixels in ten classes ([Coates2011]_), in their binary files.

    Each task draws its classes, its noise and its order of channels; no two tasks have the same classes. A task trains
    on images of its own: two tasks with a class in common may have some of its images in common.
    """

    name: ClassVar[str] = "stl10"
    layout: ClassVar[Layout] = Layout(
        title="STL-10 (binary files)",
        page="https://cs.stanford.edu/~acoates/stl10/",
        files=("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "class_names.txt"),
        folders=("stl10_binary",),
        downloads=(
            Download(
                "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz", "md5:91f7769df0f17e558f3565bffb0c7dfb"
            ),
        ),
    )

    num_tasks: Count = 20
    """Number of tasks."""
    classes_per_task: Annotated[int, Range(least=2, most=NUM_CLASSES)] = 3
    """Classes in each task."""
    tasks_seed: Annotated[int, Range(least=0)] | None = 0
    """Seed of the tasks' classes, noise and channels, the same in all runs as in the paper; none: the run's."""
    train_share: Annotated[float, Range(above=0, most=1)] = 0.25
    """Share of each class's 500 training images that a task uses."""
    valid_share: Annotated[float, Range(above=0, below=1)] = 0.15
    """Share of these that validates."""
    test_per_class: Count | None = None
    """Test images of each class; none: all 800."""
    scaling: Literal["centred", "train", "split"] = "centred"
    """``centred``: values from -0.5 to 0.5, as in the paper; ``train`` and ``split``: standardised by the mean and
    deviation of the training images, or of each split's own."""
    rounded: bool = True
    """Whether images with noise are rounded to bytes again, which take a quarter of the memory; in the paper they are
    not."""

    def __post_init__(self) -> None:
        super().__post_init__()
        most = comb(NUM_CLASSES, self.classes_per_task)
        Range(least=1, most=most).check("Stl10Reader.num_tasks", self.num_tasks)

    def classes(self, seed: int) -> list[tuple[int, ...]]:
        """Return the classes of every task, ascending."""
        every = list(combinations(range(NUM_CLASSES), self.classes_per_task))
        generator = child_generator(self._tasks_seed(seed), _CLASSES)
        return [every[number] for number in torch.randperm(len(every), generator=generator)[: self.num_tasks].tolist()]

    def style(self, seed: int, index: int) -> Style:
        """Return how a task changes its images."""
        generator = child_generator(self._tasks_seed(seed), _STYLE, index)
        mean = int(torch.randint(-2, 2, (), generator=generator)) * NOISE_STEP
        std = int(torch.randint(0, 2, (), generator=generator)) * NOISE_STEP
        return Style(noise_mean=mean, noise_std=std, channels=tuple(torch.randperm(3, generator=generator).tolist()))

    def read(self, folder: Path, seed: int) -> TaskStream:
        train, test = (read_stl10(folder, part) for part in ("train", "test"))
        names = [line.strip() for line in (folder / "class_names.txt").read_text().splitlines() if line.strip()]
        if len(names) != NUM_CLASSES:
            raise DataError(f"Expected {NUM_CLASSES} names in {folder / 'class_names.txt'}; got {len(names)}.")
        classes = self.classes(seed)
        standardise = "none" if self.scaling == "centred" else self.scaling

        def task_at(index: int) -> Task:
            style = self.style(seed, index)

            def divided(number: int) -> list[list[int]]:
                of_class = torch.nonzero(train[1] == number).flatten()
                order = torch.randperm(len(of_class), generator=child_generator(seed, _IMAGES, index, number))
                used = of_class[order][: int(len(of_class) * self.train_share)].tolist()
                num_valid = ceil(len(used) * self.valid_share)  # up, as in the authors' code
                if num_valid >= len(used):
                    raise DataError(
                        f"Class '{names[number]}' has too few images: {len(used)} of {len(of_class)} are used, "
                        f"{num_valid} of them to validate. Raise train_share."
                    )
                tested = torch.nonzero(test[1] == number).flatten()[: self.test_per_class].tolist()
                return [used[num_valid:], used[:num_valid], tested]

            def take(part: Part, positions: list[int]) -> TensorImages:
                pixels = (test if part == Part.TEST else train)[0][positions]
                upright = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 1, 3, 2)))  # files go by columns
                noise = child_generator(seed, _NOISE, index, part)
                return TensorImages(style.apply(upright, noise, rounded=self.rounded), scale=1.0)

            chosen, its_names = map(divided, classes[index]), [names[number] for number in classes[index]]
            task = task_by_class(f"{self.name}-{index}", its_names, list(chosen), take, standardise)
            if self.scaling == "centred":
                moments = {"mean": torch.full((3,), 0.5), "std": torch.ones(3)}
                splits = {p.word: replace(getattr(task, p.word), **moments) for p in Part}
                task = replace(task, **splits)
            return task

        return TaskStream.made_by(task_at, name=self.name, num_tasks=self.num_tasks)

    def _tasks_seed(self, seed: int) -> int:
        return seed if self.tasks_seed is None else self.tasks_seed


def read_stl10(folder: Path, part: str) -> tuple[NDArray[np.uint8], Tensor]:
    """Read a split: pixels (N, 3, width, height), which stay in the file, and labels from 0; DataError if damaged."""
    pixel_file, label_file = folder / f"{part}_X.bin", folder / f"{part}_y.bin"
    labels = torch.from_numpy(np.fromfile(label_file, dtype=np.uint8).astype(np.int64)) - 1
    size, wanted = pixel_file.stat().st_size, len(labels) * int(np.prod(SHAPE))
    if size != wanted or size == 0:
        raise DataError(
            f"Expected {wanted} bytes in {pixel_file}, one image of 96x96 in colour for each of {len(labels)} labels; "
            f"got {size}. Get both files again."
        )
    if labels.min() < 0 or labels.max() >= NUM_CLASSES:
        raise DataError(f"Expected labels from 1 to {NUM_CLASSES} in {label_file}; got others. Get it again.")
    return np.memmap(pixel_file, dtype=np.uint8, mode="r").reshape(-1, *SHAPE), labels
