"""What whole tasks cost: learning with a search against learning one configuration, and many tasks against few."""

from __future__ import annotations

import gc
import math
import statistics
import time
from dataclasses import replace
from typing import Any

import torch

from benchmarks.measure import NUM_CLASSES, Row, Scale, arithmetic_floor, in_turns, loop_of, make_task
from lasem.learner import Learner
from lasem.methods import Freeze
from lasem.nets import Net
from lasem.search import EM, AbstractSelection, DeepEM, Evidence, Fixed
from lasem.sharing import SHARINGS, HardSharing
from lasem.space import full
from lasem.training import Loop, TrainingConfig

_TINY = Net(image_shape=(1, 6, 6), channels=(4, 4), kernels=(3, 3), pools=(1, 2), hidden=(8,))
_TIMED = 3
"""Tasks that are timed after so many were learned."""


def task(scale: Scale) -> list[Row]:
    """The second task of a learner, its first one having been trained for an epoch; searches take turns by epochs.

    What it costs depends on the configuration that a search commits to: one that transfers nothing takes plain steps
    afterwards, which are cheaper than those of ``Fixed("all")``.
    """
    rows = []
    searches: dict[str, EM | DeepEM] = {"EM": EM(), "deep EM": DeepEM()}
    for name in scale.sharings:
        every: dict[str, AbstractSelection] = {"fixed": Fixed("all"), **searches}
        loops = {label: _second_task(scale, name, search) for label, search in every.items()}
        seconds = {label: sum(times) for label, times in in_turns(loops, scale.epochs).items()}
        for label, search in searches.items():
            share = _searched(search, scale.epochs)
            tree = arithmetic_floor(scale.net, NUM_CLASSES) if isinstance(search, EM) else search.num_samples
            cost = seconds[label] / seconds["fixed"]
            what = f"a task with {label} ({loops[label].phase.summary().configuration}) / with Fixed(all)"
            rows.append(Row("task", name, what, cost, 1 + share * (tree - 1)))
        rows.append(Row("task", name, "a task with Fixed(all), s", seconds["fixed"]))
    return rows


def exhaustive(scale: Scale) -> list[Row]:
    """Brute force over all configurations against the search.

    After each epoch of the search one of brute force's candidates is trained for one, another each time. Its epochs all
    cost the same, so their mean stands for all of them.
    """
    name, num = scale.sharings[0], 2**scale.net.depth
    tree = arithmetic_floor(scale.net, NUM_CLASSES)
    floor = num / (1 + _searched(EM(), scale.epochs) * (tree - 1))
    search = _second_task(scale, name, EM())
    candidates = [_second_task(scale, name, Fixed(str(c))) for c in full(scale.net.depth)]
    seconds = {"search": 0.0, "candidate": 0.0}
    for epoch in range(scale.epochs):
        turn = in_turns({"search": search, "candidate": candidates[epoch % num]}, 1)
        seconds = {label: seconds[label] + times[0] for label, times in turn.items()}
    cost = num * seconds["candidate"] / seconds["search"]
    return [Row("exhaustive", name, "a task with Exhaustive / with EM", cost, floor)]


def default(scale: Scale) -> list[Row]:
    """A whole task as ``lasem learn`` learns it by default, against one that owns all, in seconds of the processor.

    Both try the same steps of a pretrained network. The labels are random, so that the search never has enough: it
    tries all that it can.
    """
    rows = []
    for name, net in scale.default_nets().items():
        sharing, seconds = HardSharing(train_shared=not net.pretrained), list[float]()
        for search in (Fixed("none"), Evidence()):
            learner = Learner(net, sharing=sharing, search=search, protect=Freeze(), device=scale.device)
            if not net.pretrained:
                learner.learn(make_task(net, NUM_CLASSES, 20, name="first"), training=TrainingConfig(epochs=1))
            new = make_task(net, NUM_CLASSES, scale.images, name="second")
            started = time.process_time()
            record = learner.learn(new, training=TrainingConfig(epochs=scale.epochs, patience=0))
            seconds.append(time.process_time() - started)
        what = f"a task with evidence ({record.configuration}) / with Fixed(none)"
        rows += [
            Row("default", name, what, seconds[1] / seconds[0]),
            Row("default", name, "a task with Fixed(none), s", seconds[0]),
        ]
    return rows


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
    return rows + sources(scale)


def sources(scale: Scale) -> list[Row]:
    """Learning a task by default, by the number of tasks whose layers it may use, in seconds of the processor.

    These have the same weights, so that the search finds the same whatever their number.
    """
    net = scale.default_nets()["small"]
    learner = Learner(net, search=Fixed("none"), protect=Freeze(), training=TrainingConfig(epochs=1))
    learner.learn(make_task(net, NUM_CLASSES, 20, name="0"))
    learner.method = replace(learner.method, search=Evidence())  # type: ignore[type-var]
    learner.training = TrainingConfig(epochs=scale.epochs)
    rows, first, model = list[Row](), 0.0, learner.model
    for num in scale.num_tasks:
        names = [str(k) for k in range(num)]
        own, routes = dict.fromkeys(names, model.own["0"]), dict.fromkeys(names, model.routes["0"])
        known = Learner(net, learner.method, training=learner.training, device=scale.device)
        known._tasks = {name: replace(learner.info("0"), name=name) for name in names}
        known._num_learned, known._model = 1, model.having(own=own, routes=routes)
        started = time.process_time()
        known.learn(make_task(net, NUM_CLASSES, scale.images, name="new"))
        seconds = time.process_time() - started
        first = first or seconds
        what = f"learn by evidence / learn by evidence after {scale.num_tasks[0]}"
        rows.append(Row("tasks", f"{num} tasks learned", what, seconds / first))
    return rows


def _alive_bytes() -> int:
    """Of all tensors that Python can reach, memory that several of them share counted once."""
    gc.collect()
    # not isinstance, which would wake objects that warn of being old
    tensors = [thing for thing in gc.get_objects() if type(thing) in (torch.Tensor, torch.nn.Parameter)]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def _second_task(scale: Scale, sharing: str, search: AbstractSelection) -> Loop[Any]:
    """The loop of a search that has one phase, on the second task of a learner that was trained for an epoch before."""
    batch = scale.batch_sizes[0]
    config = TrainingConfig(epochs=1, batch_size=batch, patience=0)
    learner = Learner(scale.net, sharing=SHARINGS[sharing](), search=search, training=config, device=scale.device)
    learner.learn(make_task(scale.net, NUM_CLASSES, batch, name="first"))
    learner.training = TrainingConfig(epochs=scale.epochs, batch_size=batch, patience=0)
    return loop_of(learner, make_task(scale.net, NUM_CLASSES, scale.images, name="second"))


def _searched(search: EM | DeepEM, epochs: int) -> float:
    """Share of the epochs before commitment, which is made between two of them."""
    share = search.share_searched(epochs) if isinstance(search, EM) else search.commit_share
    return math.ceil(share * epochs) / epochs
