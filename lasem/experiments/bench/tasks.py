"""What whole tasks cost: learning with a search against learning one configuration, and many tasks against few."""

from __future__ import annotations

import gc
import math
import statistics
import time

import torch

from lasem.experiments.bench.arithmetic import arithmetic_floor
from lasem.experiments.bench.making import NUM_CLASSES, make_task
from lasem.experiments.bench.row import Row, Scale
from lasem.learner import Learner
from lasem.nets import Net
from lasem.search import EM, AbstractSelection, DeepEM, Exhaustive, Fixed
from lasem.sharing import SHARINGS
from lasem.training import TrainingConfig

_TINY = Net(image_shape=(1, 6, 6), channels=(4, 4), kernels=(3, 3), pools=(1, 2), hidden=(8,))
_TIMED = 3
"""Tasks that are timed after so many were learned."""


def task(scale: Scale) -> list[Row]:
    """The second task of a learner, its first one having been trained for an epoch."""
    rows = []
    for name in scale.sharings:
        fixed = _seconds(scale, name, Fixed("all"), scale.epochs)
        searches: dict[str, EM | DeepEM] = {"EM": EM(), "pruned EM": EM(prune=0.02), "deep EM": DeepEM()}
        for label, search in searches.items():
            share = _searched(search, scale.epochs)
            tree = arithmetic_floor(scale.net, NUM_CLASSES) if isinstance(search, EM) else search.num_samples
            seconds = _seconds(scale, name, search, scale.epochs)
            rows.append(
                Row("task", name, f"a task with {label} / with Fixed(all)", seconds / fixed, 1 + share * (tree - 1))
            )
        rows.append(Row("task", name, "a task with Fixed(all), s", fixed))
    return rows


def exhaustive(scale: Scale) -> list[Row]:
    """Brute force over all configurations against the search.

    Brute force trains for a third of the epochs and is counted three times, for each of its epochs costs the same.
    """
    few = max(1, scale.epochs // 3)
    name = scale.sharings[0]
    num = 2**scale.net.depth
    tree = arithmetic_floor(scale.net, NUM_CLASSES)
    floor = num / (1 + _searched(EM(), scale.epochs) * (tree - 1))
    times = [_seconds(scale, name, Exhaustive(), few) * scale.epochs / few, _seconds(scale, name, EM(), scale.epochs)]
    return [Row("exhaustive", name, "a task with Exhaustive / with EM", times[0] / times[1], floor)]


def tasks(scale: Scale) -> list[Row]:
    """Learning the next task and answering for the first one, by the number of tasks learned."""
    learner = Learner(_TINY, training=TrainingConfig(epochs=2, batch_size=10), device=scale.device)
    images = torch.rand(20, *_TINY.image_shape, generator=torch.Generator().manual_seed(0))
    rows: list[Row] = []
    before = _alive_bytes()
    first: dict[str, float] = {}
    for num in scale.num_tasks:
        seconds: dict[str, list[float]] = {"learn": [], "predict": []}
        while len(learner.task_names) < num + _TIMED:
            new = make_task(_TINY, 2, 20, name=f"task-{len(learner.task_names)}")
            started = time.perf_counter()
            learner.learn(new)
            if len(learner.task_names) > num:
                seconds["learn"].append(time.perf_counter() - started)
        for _ in range(20):
            started = time.perf_counter()
            learner.predict("task-0", images)
            seconds["predict"].append(time.perf_counter() - started)
        now = {what: statistics.median(times) for what, times in seconds.items()}
        first = first or now
        for what, value in now.items():
            rows.append(
                Row(
                    "tasks",
                    f"{num} tasks learned",
                    f"{what} / {what} after {scale.num_tasks[0]}",
                    value / first[what],
                    1.0,
                )
            )
        held = (_alive_bytes() - before) / (4 * learner.num_parameters())
        rows.append(Row("tasks", f"{num} tasks learned", "bytes of tensors alive / of parameters", held, 1.0))
    return rows


def _alive_bytes() -> int:
    """Of all tensors that Python can reach, memory that several of them share counted once."""
    gc.collect()
    # not isinstance, which would wake objects that warn of being old
    tensors = [thing for thing in gc.get_objects() if type(thing) in (torch.Tensor, torch.nn.Parameter)]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def _seconds(scale: Scale, sharing: str, search: AbstractSelection, epochs: int) -> float:
    """Seconds of the optimisation steps of one task."""
    batch = scale.batch_sizes[0]
    config = TrainingConfig(epochs=1, batch_size=batch, patience=0)
    learner = Learner(scale.net, sharing=SHARINGS[sharing](), search=search, training=config, device=scale.device)
    learner.learn(make_task(scale.net, NUM_CLASSES, batch, name="first"))
    learner.training = TrainingConfig(epochs=epochs, batch_size=batch, patience=0)
    times: list[float] = []
    learner.learn(
        make_task(scale.net, NUM_CLASSES, scale.images, name="second"),
        on_epoch=lambda record, timing, state: times.append(timing.seconds_training),
    )
    return sum(times)


def _searched(search: EM | DeepEM, epochs: int) -> float:
    """Share of the epochs before commitment, which is made between two of them."""
    share = search.share_searched(epochs) if isinstance(search, EM) else search.commit_share
    return math.ceil(share * epochs) / epochs
