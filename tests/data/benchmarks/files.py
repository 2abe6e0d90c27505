"""Made-up files in the layouts of the benchmarks: images of classes that can be told apart, the same every time."""

import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lasem.data.benchmarks.folders import CLASSES

from ..fixture import write_parquet


def made_up(num: int, shape: tuple[int, int, int], *, label: int, part: int = 0) -> NDArray[np.uint8]:
    """Images (num, *shape) of one class: its own pattern of patches, brightness and noise of each image."""
    channels, height, width = shape
    patches = np.random.default_rng([1, label]).normal(128, 60, (channels, 4, 4))
    pattern = patches[:, np.arange(height) * 4 // height][:, :, np.arange(width) * 4 // width]
    generator = np.random.default_rng([2, label, part])
    brightness, noise = generator.normal(0, 35, (num, 1, 1, 1)), generator.normal(0, 35, (num, *shape))
    return (pattern[None] + brightness + noise).clip(0, 255).astype(np.uint8)


def write_hub(folder: Path, shape: tuple[int, int, int], names: list[str], nums: tuple[int, int], **more: str) -> None:
    """As on the Hugging Face Hub: so many training and test images of each class."""
    for part, (name, num) in enumerate(zip(("train", "test"), nums, strict=True)):
        images = np.concatenate([made_up(num, shape, label=k, part=part) for k in range(len(names))])
        labels = np.arange(len(names)).repeat(num).tolist()
        file = folder / f"{name}-00000-of-00001.parquet"
        write_parquet(file, torch.from_numpy(images), labels, names, rows_in_group=500, **more)


def write_stl10(folder: Path) -> None:
    """40 training and 20 test images of each class."""
    for part, (name, num) in enumerate((("train", 40), ("test", 20))):
        images = np.concatenate([made_up(num, (3, 96, 96), label=k, part=part) for k in range(10)])
        np.ascontiguousarray(images.transpose(0, 1, 3, 2)).tofile(folder / f"{name}_X.bin")
        np.arange(1, 11, dtype=np.uint8).repeat(num).tofile(folder / f"{name}_y.bin")
    (folder / "class_names.txt").write_text("".join(f"class_{k}\n" for k in range(10)))


def write_omniglot(folder: Path) -> None:
    """Six alphabets of five characters with 20 drawings of each: two as zip file, four as folders."""
    with zipfile.ZipFile(folder / "images_evaluation.zip", "w") as packed:
        for alphabet in range(6):
            for character in range(1, 6):
                images = made_up(20, (1, 105, 105), label=5 * alphabet + character)
                for number, pixels in enumerate(images[:, 0], start=1):
                    buffer = io.BytesIO()
                    Image.fromarray(np.where(pixels > 128, 255, 0).astype(np.uint8)).convert("1").save(buffer, "PNG")
                    name = f"Alphabet_{alphabet}/character{character:02d}/{alphabet:04d}_{number:02d}.png"
                    if alphabet < 2:
                        packed.writestr(f"images_evaluation/{name}", buffer.getvalue())
                    else:
                        path = folder / "images_background" / name
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_bytes(buffer.getvalue())


def write_office_home(folder: Path) -> None:
    """Ten images of several sizes of each class and domain."""
    for part, domain in enumerate(("Product", "Real World")):
        for label, name in enumerate(CLASSES):
            (folder / domain / name).mkdir(parents=True)
            images = made_up(10, (3, 32, 40), label=label, part=part).transpose(0, 2, 3, 1)
            for number, pixels in enumerate(images, start=1):
                Image.fromarray(pixels[:, : 40 - number]).save(folder / domain / name / f"{number:05d}.jpg", quality=95)
