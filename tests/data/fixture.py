"""Small data sets that the tests of this room write to disk or hold in memory."""

import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from lasem.data import Split, Task, TensorImages


def random_images(num: int, shape: tuple[int, int, int] = (3, 4, 5), seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (num, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def random_split(num: int, num_classes: int = 2, shape: tuple[int, int, int] = (3, 4, 5)) -> Split:
    zeros, ones = torch.zeros(shape[0]), torch.ones(shape[0])
    return Split(TensorImages(random_images(num, shape)), torch.arange(num) % num_classes, zeros, ones)


def random_task(name: str = "task", num_classes: int = 2) -> Task:
    classes = tuple(f"class{number}" for number in range(num_classes))
    return Task(name, classes, random_split(6, num_classes), random_split(4, num_classes), random_split(5, num_classes))


def png(pixels: Tensor) -> bytes:
    """Encode uint8 (1 or 3, height, width); PNG loses nothing."""
    file = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).squeeze(2).numpy()).save(file, format="PNG")
    return file.getvalue()


def write_class_folders(
    place: Path, classes: Sequence[str], num: int | Sequence[int], seed: int = 0, size: int = 6
) -> Path:
    """So many images of each class, or of all."""
    counts = [num] * len(classes) if isinstance(num, int) else num
    for number, (name, count) in enumerate(zip(classes, counts, strict=True)):
        (place / name).mkdir(parents=True)
        for index, pixels in enumerate(random_images(count, (3, size, size), seed * 1000 + number)):
            (place / name / f"{index:03d}.png").write_bytes(png(pixels))
    return place


def write_parquet(
    file: Path,
    images: Tensor,
    labels: Sequence[Any],
    names: Sequence[str] | None = None,
    plain: bool = False,
    rows_in_group: int = 7,
    image: str = "image",
    label: str = "label",
    damaged: Sequence[int] = (),
) -> None:
    """Write as the Hugging Face library does; ``plain`` cells are bytes instead of a struct."""
    cells = [png(image)[: -30 if row in damaged else None] for row, image in enumerate(images)]
    column = pa.array(cells) if plain else pa.array([{"bytes": cell, "path": "x.png"} for cell in cells])
    table = pa.table({image: column, label: pa.array(list(labels)), "other": pa.array(np.arange(len(labels)))})
    if names is not None:
        features = {label: {"names": list(names), "_type": "ClassLabel"}, image: {"_type": "Image"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    write_table(table, file, rows_in_group)


def write_table(table: pa.Table, file: Path, rows_in_group: int = 7) -> None:
    if file.suffix == ".parquet":
        pq.write_table(table, file, row_group_size=rows_in_group)
        return
    with pa.OSFile(str(file), "wb") as opened, pa.ipc.new_stream(opened, table.schema) as writer:
        writer.write_table(table, rows_in_group)


def all_pixels(split: Split) -> Tensor:
    return split.images.take(torch.arange(len(split)))


def named_pixels(tasks: Iterable[Task]) -> dict[bytes, str]:
    """The class of every image of some tasks; no image may come twice."""
    splits = [(task, split) for task in tasks for split in (task.train, task.valid, task.test)]
    found = {
        pixels.numpy().tobytes(): name
        for task, split in splits
        for pixels, name in zip(all_pixels(split), task.names_of(split.labels), strict=True)
    }
    assert len(found) == sum(len(split) for _, split in splits)
    return found


def assert_same_task(first: Task, second: Task) -> None:
    assert (first.name, first.classes) == (second.name, second.classes)
    for one, other in zip(
        (first.train, first.valid, first.test), (second.train, second.valid, second.test), strict=True
    ):
        assert torch.equal(all_pixels(one), all_pixels(other))
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.mean, other.mean)
        assert torch.equal(one.std, other.std)
