"""What checkpoints of a ResNet-18 cost: bytes an epoch and share of the time, now and as they were.

A second task of a few random images, 64 pixels a side, with three kinds of checkpoints in turn: of every tensor after
every epoch, as they were; of what training has changed, after every epoch; the same at most every 30 seconds, as now.

    python -m benchmarks.checkpoints
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch

from lasem import EM, Fixed, GrowingModel, Task, TrainingConfig
from lasem.methods import Branch, Freeze
from lasem.nets import AbstractNet, from_timm
from lasem.training import CHECKPOINT_SECONDS, Checkpoint, Checkpoints

STAGES = [("conv1", "bn1"), *(f"layer{number}" for number in range(1, 5))]
CASES = {
    "all transferred, only read": (Fixed("all"), Freeze()),
    "all owned": (Fixed("none"), Branch()),
    "search, shared layers only read": (EM(groups=(3, 2)), Freeze()),
}


class Cost(NamedTuple):
    """Of checkpoints, while one task is learned."""

    num_bytes: float
    """Written in an epoch."""
    share: float
    """Of the time that learning takes, with the copies that stay in memory."""


def measure(
    folder: Path, net: AbstractNet, case: str, *, whole: bool, seconds: float, images: int, epochs: int
) -> Cost:
    """Learn two tasks, and look at the checkpoints of the second; ``whole`` leaves no tensor out of them."""
    search, protect = CASES[case]
    num_bytes, spent = 0, 0.0

    def epoch_ends(self: Checkpoints, *given: Any) -> None:
        nonlocal spent
        started = time.perf_counter()
        real_epoch_ends(self, *given)
        spent += time.perf_counter() - started

    def save(self: Checkpoint, place: Path) -> None:
        nonlocal num_bytes
        real_save(self, place)
        num_bytes += sum(path.stat().st_size for path in place.iterdir() if path.name != "learning.json")

    training = TrainingConfig(epochs=epochs, batch_size=10)
    parts: dict[str, Any] = {"net": net, "search": search, "protect": protect, "training": training}
    model = GrowingModel(folder, **parts, checkpoint_seconds=seconds)
    model.learn("first", task("first", images, net.image_shape))
    real_epoch_ends, real_save = Checkpoints.epoch_ends, Checkpoint.save
    with ExitStack() as changed:
        changed.enter_context(patch.object(Checkpoints, "epoch_ends", epoch_ends))
        changed.enter_context(patch.object(Checkpoint, "save", save))
        for room in ("loop", "plan") if whole else ():
            changed.enter_context(patch(f"lasem.training.{room}.without_same", lambda tree, like: tree))
        started = time.perf_counter()
        model.learn("second", task("second", images, net.image_shape))
    return Cost(num_bytes / epochs, spent / (time.perf_counter() - started))


def task(name: str, images: int, shape: tuple[int, int, int]) -> Task:
    """Random images of two classes."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.rand(count, *shape, generator=generator), torch.arange(count) % 2

    return Task.from_tensors(name, train=split(images), valid=split(10), test=split(10))


def main(argv: Sequence[str] | None = None) -> dict[str, list[Cost]]:
    """Print a line for each case: as it was; with every epoch kept; now."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=10)
    chosen = parser.parse_args(argv)
    torch.manual_seed(0)
    net = from_timm("resnet18", image_shape=(3, 64, 64), blocks=STAGES)
    found: dict[str, list[Cost]] = {case: [] for case in CASES}
    for case, costs in found.items():
        with tempfile.TemporaryDirectory() as folder:
            for whole, seconds in ((True, 0), (False, 0), (False, CHECKPOINT_SECONDS)):
                place = Path(folder, str(len(costs)))
                costs.append(measure(place, net, case, whole=whole, seconds=seconds, **vars(chosen)))
        kinds = ("everything", "what changes", f"every {CHECKPOINT_SECONDS:.0f} s")
        for kind, cost in zip(kinds, costs, strict=True):
            written, share = cost.num_bytes / 1e6, 100 * cost.share
            print(f"{case}, {kind}: {written:.1f} MB an epoch, {share:.1f} % of the time", flush=True)
    return found


if __name__ == "__main__":
    main()
