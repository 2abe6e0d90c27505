"""Omniglot with an alphabet a task.

.. [Lake2015] B. M. Lake, R. Salakhutdinov, J. B. Tenenbaum. Human-level concept learning through probabilistic program
   induction. Science 350, 2015.
"""

from __future__ import annotations

import io
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, final

import numpy as np
import torch

from lasem.data.benchmarks.download import Download
from lasem.data.benchmarks.source import BenchmarkSettings, Layout, choose, open_benchmark
from lasem.data.benchmarks.stand_in import stand_in_images
from lasem.data.checks import check_count
from lasem.data.decode import decode
from lasem.data.images import TensorImages
from lasem.data.seeds import child_generator
from lasem.data.split import STANDARDISE, Standardise, make_splits
from lasem.data.stream import AbstractReader, TaskStream
from lasem.data.task import Task
from lasem.errors import ConfigError, DataError, check_choice

_PARTS = ("images_background", "images_evaluation")
_CHECKSUMS = ("68d2efa1b9178cc56df9314c21c6e718", "6b91aef0f799c5bb55b94e3f2daec811")

LAYOUT: Final = Layout(
    title="Omniglot (two zip files, unpacked or not)",
    files=tuple(f"{name}|{name}.zip" for name in _PARTS),
    folders=("omniglot-py", "python"),
    downloads=tuple(
        Download(
            url=f"https://raw.githubusercontent.com/brendenlake/omniglot/master/python/{name}.zip",
            checksum=f"md5:{checksum}",
        )
        for name, checksum in zip(_PARTS, _CHECKSUMS, strict=True)
    ),
)

_ORDER, _IMAGES = range(2)  # what a child generator is for


@final
@dataclass(frozen=True, kw_only=True)
class OmniglotReader(BenchmarkSettings, AbstractReader):
    """1,623 characters of 50 alphabets, each drawn by 20 people ([Lake2015]_). A task tells apart one alphabet's.

    Files: ``images_background`` and ``images_evaluation``, as folders or zip files. The seed orders the alphabets and
    parts the drawings; the authors of LASEM have the sizes of the splits in their code, but no such experiment.
    """

    name: ClassVar[str] = "omniglot"

    num_tasks: int | None = None
    """Number of alphabets; none: all 50."""
    train_per_class: int = 8
    """Training drawings of each character, of 20."""
    valid_per_class: int = 2
    """Validation drawings of each character."""
    test_per_class: int = 10
    """Test drawings of each character."""
    image_size: int | None = 28
    """Height and width that the drawings are resized to; none: 105, as they are."""
    standardise: Standardise = "train"
    """Whose mean and deviation standardise a task's images: ``train``: all by the training images'; ``split``: each
    split by its own; ``none``: only divided by 255."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for setting in ("num_tasks", "train_per_class", "valid_per_class", "test_per_class", "image_size"):
            value = getattr(self, setting)
            if value is not None:
                check_count(f"OmniglotReader.{setting}", value, least=1)
        check_choice("OmniglotReader.standardise", self.standardise, STANDARDISE)

    def open(self, seed: int) -> TaskStream:
        """See AbstractReader. Drawings are decoded when their alphabet is reached."""

        def read(folder: Path) -> TaskStream:
            alphabets = read_index(folder)
            num_tasks = len(alphabets) if self.num_tasks is None else self.num_tasks
            if num_tasks > len(alphabets):
                raise ConfigError(
                    f"OmniglotReader.num_tasks must be at most {len(alphabets)}, the number of alphabets; got "
                    f"{num_tasks}."
                )
            names = sorted(alphabets)
            order = torch.randperm(len(names), generator=child_generator(seed, _ORDER)).tolist()

            def task_at(index: int) -> Task:
                number = order[index]
                return self._task(index, alphabets[names[number]], seed, number)

            return TaskStream.made_by(task_at, name=self.name, num_tasks=num_tasks)

        return open_benchmark(self, self.name, LAYOUT, read=read, write_stand_in=write_stand_in)

    def _task(self, index: int, drawings: dict[str, list[Drawing]], seed: int, number: int) -> Task:
        counts = (self.train_per_class, self.valid_per_class, self.test_per_class)
        chosen: list[list[Drawing]] = [[], [], []]
        labels: list[list[int]] = [[], [], []]
        for label, character in enumerate(sorted(drawings)):
            mine = sorted(drawings[character], key=lambda drawing: drawing.file)
            if len(mine) < sum(counts):
                raise DataError(
                    f"Class '{character}' has too few images: {len(mine)} drawings, {sum(counts)} are asked for. Ask "
                    f"for fewer of each class."
                )
            order = torch.randperm(len(mine), generator=child_generator(seed, _IMAGES, number, label)).tolist()
            for part, count in enumerate(counts):
                chosen[part] += [mine[position] for position in order[:count]]
                labels[part] += [label] * count
                order = order[count:]
        parts = [
            (TensorImages(_decode(of_part, self.image_size)), torch.tensor(their_labels))
            for of_part, their_labels in zip(chosen, labels, strict=True)
        ]
        splits = make_splits(parts[0], parts[1], parts[2], self.standardise)
        return Task(f"{self.name}-{index}", tuple(sorted(drawings)), *splits)


@final
@dataclass(frozen=True)
class Drawing:
    """One file: where it is, inside a zip file or not."""

    archive: Path | None
    file: str


def read_index(folder: Path) -> dict[str, dict[str, list[Drawing]]]:
    """Every drawing by alphabet and character, without reading any.

    Raises:
        DataError: if there is none, or a zip file is damaged.
    """
    found: dict[str, dict[str, list[Drawing]]] = defaultdict(lambda: defaultdict(list))
    for names in LAYOUT.files:
        place = choose(folder, names)
        for drawing in _drawings(place):
            path = Path(drawing.file)
            found[path.parts[-3]][path.parts[-2]].append(drawing)
        if not found:
            raise DataError(f"Expected drawings, as ALPHABET/CHARACTER/*.png, in {place}; there are none.")
    return found


def _drawings(place: Path) -> list[Drawing]:
    if place.is_dir():
        return [Drawing(None, str(path)) for path in place.glob("*/*/*.png")]
    try:
        with zipfile.ZipFile(place) as packed:
            return [Drawing(place, name) for name in packed.namelist() if name.endswith(".png")]
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"Expected a zip file at {place}; {error}. Get it again.") from error


def _decode(drawings: Sequence[Drawing], size: int | None) -> torch.Tensor:
    images = []
    archives: dict[Path, zipfile.ZipFile] = {}
    try:
        for drawing in drawings:
            if drawing.archive is None:
                source: Path | bytes = Path(drawing.file)
            else:
                if drawing.archive not in archives:
                    archives[drawing.archive] = zipfile.ZipFile(drawing.archive)
                source = archives[drawing.archive].read(drawing.file)
            images.append(decode(source, drawing.file, channels=1, size=size))
    finally:
        for archive in archives.values():
            archive.close()
    return torch.stack(images)


def write_stand_in(folder: Path) -> None:
    """Write six alphabets of five characters with 20 drawings of each: two as zip file, four as folders."""
    from PIL import Image

    with zipfile.ZipFile(folder / f"{_PARTS[1]}.zip", "w") as packed:
        for alphabet in range(6):
            for character in range(1, 6):
                images = stand_in_images(20, (1, 105, 105), label=5 * alphabet + character)
                for number, pixels in enumerate(np.where(images[:, 0] > 128, 255, 0).astype(np.uint8), start=1):
                    buffer = io.BytesIO()
                    Image.fromarray(pixels).convert("1").save(buffer, format="PNG")
                    name = (
                        f"Alphabet_{alphabet}/character{character:02d}/{5 * alphabet + character:04d}_{number:02d}.png"
                    )
                    if alphabet < 2:
                        packed.writestr(f"{_PARTS[1]}/{name}", buffer.getvalue())
                    else:
                        path = folder / _PARTS[0] / name
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_bytes(buffer.getvalue())
