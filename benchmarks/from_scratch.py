"""A small network from scratch: the default of ``lasem learn`` against a small CNN of plain torch, on photographs.

Both learn from the same images of 64 pixels, 40 of each class, in as many epochs. Ten more of each class validate (of
lasem; the CNN keeps its last weights), the others test. Run one or more seeds with one thread::

    python benchmarks/from_scratch.py FOLDER --seeds 0,1,2

FOLDER has parquet files of images with labels: ``flowers17_96.parquet``, and ``office_caltech10_96.parquet``, of which
``amazon`` is a part. ``--task tuning`` is another part of it, Caltech's photographs, on which defaults were chosen.
"""

from __future__ import annotations

import argparse
import io
import math
import statistics
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from lasem import Learner, Task, TrainingConfig, for_images
from lasem.methods import Branch

SIDE, NUM_TRAIN, NUM_VALID = 64, 40, 10
TASKS = {
    "flowers17": ("flowers17_96.parquet", None),
    "amazon": ("office_caltech10_96.parquet", "amazon"),
    "tuning": ("office_caltech10_96.parquet", "caltech10"),
}


def task_of(folder: Path, name: str, seed: int) -> Task:
    """Read the images of a task and divide each class at random."""
    file, domain = TASKS[name]
    rows = pq.read_table(folder / file).to_pylist()
    rows = [row for row in rows if domain is None or row["domain"] == domain]
    pictures = [Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB").resize((SIDE, SIDE)) for row in rows]
    images = np.stack([np.asarray(picture) for picture in pictures]).transpose(0, 3, 1, 2)
    labels, draws = np.array([str(row["label"]) for row in rows]), np.random.default_rng(seed)
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for label in np.unique(labels):
        chosen = draws.permutation(np.flatnonzero(labels == label))
        for part, indices in zip(parts, np.split(chosen, [NUM_TRAIN, NUM_TRAIN + NUM_VALID]), strict=True):
            part.extend(indices)
    train, valid, test = ((images[part], labels[part].tolist()) for part in parts)
    return Task.from_tensors(name, train=train, valid=valid, test=test)


def cnn(num_classes: int) -> nn.Sequential:
    """Build four convolutions with batch normalisation, global pooling and one linear layer."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 32), (32, 64), (64, 128), (128, 256)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if outputs < 256 else [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(256, num_classes))


def flips_and_crops(x: Tensor) -> Tensor:
    """Mirror every second image, and crop each from its reflection by up to an eighth of its side."""
    most, padded = SIDE // 8, F.pad(x, [SIDE // 8] * 4, mode="reflect")
    changed = []
    for image, (i, j) in zip(padded, torch.randint(2 * most + 1, (len(x), 2)).tolist(), strict=True):
        crop = image[:, i : i + SIDE, j : j + SIDE]
        changed.append(crop.flip(2) if torch.rand(()) < 0.5 else crop)
    return torch.stack(changed)


def cnn_accuracy(task: Task, seed: int, epochs: int, batch_size: int = 10, step: float = 1e-3) -> float:
    """Train the CNN with Adam and a cosine to 0, and return its accuracy on the test images."""
    torch.manual_seed(seed)
    net = cnn(task.num_classes)
    optimiser = torch.optim.Adam(net.parameters(), lr=step)
    for epoch in range(epochs):
        optimiser.param_groups[0]["lr"] = step * (1 + math.cos(math.pi * epoch / epochs)) / 2
        for x, labels in task.train.batches(batch_size, generator=torch.default_generator, training=True):
            x = flips_and_crops(x).contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(net(x), labels)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    net.eval()
    with torch.no_grad():
        right = [(net(x).argmax(dim=1) == labels).sum() for x, labels in task.test.batches(100)]
    return int(sum(right)) / len(task.test)


def lasem_accuracy(task: Task, seed: int, epochs: int | None) -> tuple[float, int]:
    """Learn the task as ``lasem learn`` does by default; return the accuracy on the test images, and the parameters."""
    training = TrainingConfig() if epochs is None else TrainingConfig(epochs=epochs)
    learner = Learner(for_images(task.image_shape), protect=Branch(), training=training, seed=seed)
    return learner.learn(task).peak_accuracy, learner.num_parameters()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each seed of each task, and the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="parquet files of images")
    parser.add_argument("--task", choices=TASKS, action="append", help="default: flowers17 and amazon")
    parser.add_argument("--seeds", default="0", help="such as 0,1,2")
    parser.add_argument("--epochs", type=int, help="default: that of lasem")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for name in options.task or ("flowers17", "amazon"):
        rows = []
        for seed in map(int, options.seeds.split(",")):
            task, times = task_of(options.folder, name, seed), [time.perf_counter()]
            own, parameters = lasem_accuracy(task, seed, options.epochs)
            times.append(time.perf_counter())
            plain = cnn_accuracy(task, seed, options.epochs or TrainingConfig().epochs)
            times.append(time.perf_counter())
            rows.append((100 * own, 100 * plain))
            seconds = [later - before for before, later in pairwise(times)]
            print(
                f"{name} seed {seed}: lasem {100 * own:.1f} % ({parameters:,} parameters, {seconds[0]:.0f} s), "
                f"CNN {100 * plain:.1f} % ({seconds[1]:.0f} s)",
                flush=True,
            )
        if len(rows) > 1:
            means = [f"{statistics.mean(of):.1f} ± {statistics.stdev(of):.1f}" for of in zip(*rows, strict=True)]
            print(f"{name}: lasem {means[0]}, CNN {means[1]}", flush=True)


if __name__ == "__main__":
    main()
