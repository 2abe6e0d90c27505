"""The files of lasem that run for one prediction, for loading a learner and for one mini-batch of EM's search.

How far a reader has to go: the distinct files under ``lasem/`` in which a function is called, counted by
``sys.setprofile``. What runs only the first time (imports, the model being opened) is left out by running all once.

    python benchmarks/trace_files.py
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.optim.optimizer import register_optimizer_step_post_hook

import lasem
from lasem import EM, GrowingModel, Learner, Task, TrainingConfig, for_images

PACKAGE = Path(lasem.__file__).parent
SIZE = 8
CLASSES = ("dark", "light")


@contextmanager
def traced(files: set[str]) -> Iterator[None]:
    """Add the files whose functions are called inside, from lasem's folder."""

    def called(frame: Any, event: str, _: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            files.add(str(path.relative_to(PACKAGE)))

    sys.setprofile(called)
    try:
        yield
    finally:
        sys.setprofile(None)


def task(name: str) -> Task:
    """Eight mini-batches of five noisy images."""
    generator = torch.Generator().manual_seed(0)

    def split(num: int) -> tuple[torch.Tensor, list[str]]:
        labels = torch.arange(num) % 2
        images = torch.rand(num, 1, SIZE, SIZE, generator=generator) / 2 + labels.view(-1, 1, 1, 1) / 2
        return images, [CLASSES[label] for label in labels]

    return Task.from_tensors(name, train=split(40), valid=split(10), test=split(10))


def files_of_predict(folder: Path) -> set[str]:
    """Answer for one image with a growing model that has answered before."""
    model, image, files = GrowingModel(folder / "model", training=training()), folder / "image.png", set[str]()
    model.learn("task", task("task"))
    Image.new("L", (SIZE, SIZE), 200).save(image)
    list(model.predict("task", [image]))
    with traced(files):
        list(model.predict("task", [image]))
    return files


def files_of_load(folder: Path) -> set[str]:
    """Load a learner of two tasks."""
    learner, files = Learner(for_images((1, SIZE, SIZE)), training=training()), set[str]()
    for name in ("first", "second"):
        learner.learn(task(name))
    learner.save(folder / "learner")
    Learner.load(folder / "learner")
    with traced(files):
        Learner.load(folder / "learner")
    return files


def files_of_a_mini_batch() -> set[str]:
    """Run from the end of one optimiser step to the end of the next, while EM searches for the second task."""
    learner = Learner(for_images((1, SIZE, SIZE)), search=EM(), training=training())
    learner.learn(task("first"))
    files, num_steps = set[str](), 0
    tracing = traced(files)

    def stepped(*_: object) -> None:
        nonlocal num_steps
        num_steps += 1
        if num_steps == 3:
            tracing.__enter__()
        elif num_steps == 4:
            tracing.__exit__(None, None, None)

    hook = register_optimizer_step_post_hook(stepped)
    try:
        learner.learn(task("second"))
    finally:
        hook.remove()
    return files


def training() -> TrainingConfig:
    """Three epochs of eight mini-batches: the search is going on in the first."""
    return TrainingConfig(epochs=3, batch_size=5)


def measure() -> dict[str, set[str]]:
    """Return the files by what was run."""
    with tempfile.TemporaryDirectory() as folder:
        return {
            "GrowingModel.predict of one image": files_of_predict(Path(folder)),
            "Learner.load": files_of_load(Path(folder)),
            "one EM mini-batch": files_of_a_mini_batch(),
        }


if __name__ == "__main__":
    for what, files in measure().items():
        print(f"{what}: {len(files)} files")
        print("".join(f"  {file}\n" for file in sorted(files)))
