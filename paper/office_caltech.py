"""Office-Caltech10 in the place of Office-Home: photographs of things by where they come from, cut as the paper cuts.

.. [Gong2012] B. Gong, Y. Shi, F. Sha, K. Grauman. Geodesic Flow Kernel for Unsupervised Domain Adaptation. CVPR 2012.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, final

import torch

from lasem.data.decode import decode
from lasem.data.images import AbstractImages, TensorImages
from lasem.data.parquet import check_column, opened_table
from lasem.data.split import Part
from lasem.data.task import AbstractReader, Task, TaskStream, child_generator, dealt, task_by_class
from lasem.errors import DataError
from lasem.settings import Range

DOMAINS: Final = ("amazon", "caltech10")
CLASSES: Final = (
    ("backpack", "bike", "calculator", "headphones", "keyboard"),
    ("laptop", "monitor", "mouse", "mug", "projector"),
)
"""Of the tasks of each domain."""
_SHARES: Final = (0.6, 0.1, 0.3)  # training, validation and test images of each class, as the paper's of Office-Home


@final
@dataclass(frozen=True, kw_only=True)
class OfficeCaltechReader(AbstractReader):
    """Four tasks of five classes: two lists of classes in two domains of [Gong2012]_; pixels are divided by 255.

    Reads a parquet file with the columns ``image``, ``label`` and ``domain``. The seed divides each class's images.
    """

    name: ClassVar[str] = "office-caltech"

    path: str
    """The file."""
    num_tasks: Annotated[int, Range(least=1, most=4)] = 4
    """Number of tasks, the first of the four."""
    image_size: Annotated[int, Range(least=1, most=8192)] = 32
    """Height and width that every image is resized to."""
    images_per_class: Annotated[int, Range(least=10, most=80)] = 60
    """Images of each class and domain that are used: 60 % train, 10 % validate, 30 % test."""

    def open(self, seed: int) -> TaskStream:
        cells = self._cells()
        counts = [round(self.images_per_class * share) for share in _SHARES]

        def take(part: Part, chosen: list[Any]) -> AbstractImages:
            decoded = [decode(cell["bytes"], self.path, channels=3, size=self.image_size) for cell in chosen]
            return TensorImages(torch.stack(decoded))

        def task_at(index: int) -> Task:
            domain, group = divmod(index, len(CLASSES))
            chosen = []
            for number, name in enumerate(CLASSES[group]):
                found = cells.get((DOMAINS[domain], name), [])
                if len(found) < self.images_per_class:
                    raise DataError(
                        f"Expected {self.images_per_class} images of '{name}' in domain '{DOMAINS[domain]}' of "
                        f"{self.path}; there are {len(found)}."
                    )
                chosen.append(dealt(found, counts, child_generator(seed, index, number)))
            return task_by_class(f"{self.name}-{index}", CLASSES[group], chosen, take, "none")

        return TaskStream.made_by(task_at, name=self.name, num_tasks=self.num_tasks)

    def _cells(self) -> dict[tuple[str, str], list[Any]]:
        """Return encoded images by domain and class."""
        import pyarrow.parquet

        columns = ("image", "label", "domain")
        with opened_table(Path(self.path), columns) as table:
            for name in columns:
                check_column(table.schema, Path(self.path), name, (), "It must have image, label and domain.")
        found: dict[tuple[str, str], list[Any]] = {}
        for row in pyarrow.parquet.read_table(self.path, columns=list(columns)).to_pylist():
            found.setdefault((row["domain"], row["label"]), []).append(row["image"])
        return found
