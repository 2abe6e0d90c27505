"""The benchmarks by name, and the two sizes in which they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from benchmarks import steps, tasks
from benchmarks.measure import Row, Scale
from lasem.nets import AbstractNet, Net, cifar, small
from lasem.nets.backbone import default_is_installed
from lasem.nets.net import Backbone
from lasem.settings import check_choice

BENCHMARKS: dict[str, Callable[[Scale], list[Row]]] = {
    "correct": steps.correct,
    "tree": steps.tree,
    "task": tasks.task,
    "exhaustive": tasks.exhaustive,
    "default": tasks.default,
    "precision": steps.precision,
    "depth": steps.depth,
    "configurations": steps.configurations,
    "tasks": tasks.tasks,
    "batch": steps.batch,
}
"""In the order in which they run."""


def _default_nets() -> dict[str, AbstractNet]:
    """Return the default networks, of which the pretrained one may not be installed."""
    pretrained = {"pretrained": Backbone()((3, 96, 96))} if default_is_installed() else {}
    return {"small": small((3, 32, 32)), **pretrained}


FULL = Scale(
    net=cifar(),
    sharings=("hps", "tf", "dfcnn"),
    batch_sizes=(10, 160),
    throughput_sizes=(1, 10, 40, 160),
    epochs=60,
    images=170,
    depths=(4, 8, 17, 30, 50),
    listed_depths=(1, 2, 3, 4, 5, 6),
    default_nets=_default_nets,
    num_tasks=(2, 20, 200, 1000),
    turns=15,
)
SMOKE = Scale(
    net=Net(image_shape=(3, 8, 8), channels=(4, 4, 8), kernels=(3,) * 3, pools=(1, 2, 2), hidden=(8,)),
    sharings=("hps", "tf", "dfcnn"),
    batch_sizes=(4,),
    throughput_sizes=(2, 4),
    epochs=3,
    images=8,
    depths=(4, 50),
    listed_depths=(1, 3),
    default_nets=lambda: {"small": small((3, 32, 32))},
    num_tasks=(2, 6),
    turns=1,
    steps=1,
)


def run_benchmarks(scale: Scale, names: Sequence[str] = ()) -> Iterator[Row]:
    """Each result as soon as it is there.

    Args:
        scale: how much is measured.
        names: the benchmarks to run; all if none is given.

    Raises:
        ConfigError: if there is no benchmark of a name.
        WrongResultError: if a fast path does not compute what the slow one does.
    """
    for name in names:
        check_choice("only", name, BENCHMARKS)
    for name, benchmark in BENCHMARKS.items():
        if not names or name in names:
            yield from benchmark(scale)
