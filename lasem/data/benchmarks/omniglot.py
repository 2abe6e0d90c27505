"""Omniglot with an alphabet a task.

.. [Lake2015] B. M. Lake, R. Salakhutdinov, J. B. Tenenbaum. Human-level concept learning through probabilistic program
   induction. Science 350, 2015.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import torch

from lasem.data.benchmarks.source import BenchmarkReader, Download, Layout
from lasem.data.images import FileImages
from lasem.data.split import StandardiseSettings
from lasem.data.task import Count, Task, TaskStream, child_generator, dealt, task_by_class
from lasem.errors import ConfigError, DataError

_ORDER, _IMAGES = range(2)  # what a child generator is for
_URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python"


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
