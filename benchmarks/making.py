"""Tasks, loops and turns: what the benchmarks have in common."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

import torch

from benchmarks.memory import PeakMemory
from lasem.data import Task
from lasem.learner import Learner
from lasem.nets import Net
from lasem.search import EM, AbstractSelection
from lasem.sharing import AbstractSharing
from lasem.training import Loop, TrainingConfig

NUM_CLASSES = 10
WHOLE_TREE = EM(first_task="search", commit_probability=2, commit_share=1)
"""Evaluates all configurations and never commits."""


def make_task(net: Net, num_classes: int, num_train: int, name: str = "task") -> Task:
    """Random pixels: what is in an image costs no time."""
    generator = torch.Generator().manual_seed(0)

    def split(num: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.rand(num, *net.image_shape, generator=generator), torch.arange(num) % num_classes

    classes = [str(k) for k in range(num_classes)]
    small = max(num_classes, 2)
    return Task.from_tensors(name, train=split(num_train), valid=split(small), test=split(small), classes=classes)


def make_loop(
    net: Net,
    sharing: AbstractSharing,
    search: AbstractSelection,
    task: Task,
    batch: int,
    device: str = "cpu",
    **settings: Any,
) -> Loop[Any]:
    """The loop that ``learn`` makes, with the initial weights that a learner gives it; more of ``TrainingConfig``."""
    config = TrainingConfig(epochs=10**6, batch_size=batch, drop_last=True, **settings)
    return loop_of(Learner(net, sharing=sharing, search=search, training=config, device=device), task)


def loop_of(learner: Learner, task: Task) -> Loop[Any]:
    """The loop over the first phase of a learner's next task."""
    phase = next(learner.method.plan(learner.model, task, learner.setup))
    return Loop(phase, seeds=(0, 1), device=learner.device)


def in_turns(loops: Mapping[str, Loop[Any]], turns: int) -> dict[str, list[float]]:
    """Seconds that each loop trains in each turn, which is an epoch; the loops take turns.

    Where an epoch ends the loop reads its loss, so that a GPU's work is in the time.
    """
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(turns):
        for name, loop in loops.items():
            _, timing = loop.run_epoch()
            seconds[name].append(timing.seconds_training)
    return seconds


def take_turns(loops: Mapping[str, Loop[Any]], turns: int) -> dict[str, list[float]]:
    """Seconds of a step of each loop in each turn; a first turn warms up."""
    seconds = in_turns(loops, turns + 1)
    return {name: [time / loops[name].phase.num_batches for time in times[1:]] for name, times in seconds.items()}


def ratio(one: list[float], other: list[float]) -> float:
    """Median over the turns of the ratio within a turn: a machine that is busy for a while slows both."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def peak_bytes(loop: Loop[Any]) -> int:
    """Most bytes of tensors alive at once in an epoch, apart from what was there before it."""
    loop.run_epoch()  # so that the optimiser's state is there
    memory = PeakMemory()
    with memory:
        loop.run_epoch()
    return memory.peak
