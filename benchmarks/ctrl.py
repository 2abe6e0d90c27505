"""Which earlier task helps: the last task of CTrL-mini's streams, whose source is known, after six others.

Streams ``s-minus``, ``s-out`` and ``s-in`` of a seed differ in their last task alone, so the six tasks before it are
learned once for each method. A line of JSON a result::

    python -m benchmarks.ctrl FOLDER --seeds 0,1 --out ctrl.jsonl
    python -m benchmarks.ctrl FOLDER --streams s-plus,s-pl --methods all-images,tuned,evidence --out large.jsonl

FOLDER has CIFAR-100's parquet files. ``single`` is the task by itself; ``all-images`` the same, trained on the
validation images as well, for as many epochs. ``tuned`` trains all layers of the earlier task whose features explain
most, ``tuned-less`` with 0.3 of the step, both on all images.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import torch

from lasem import EM, Branch, Fixed, Freeze, Learner, Task, TrainingConfig
from lasem.data.ctrl import CtrlReader
from lasem.nets import small
from lasem.search import MNTDP, AbstractSelection, Evidence
from lasem.search.abstract import Selected
from lasem.search.sources import ranked, reusing
from lasem.search.weighing import TriedPhase, trained
from lasem.space.configuration import Pattern
from lasem.training import Plan, TaskStart
from lasem.training.kept import prepared

STREAMS = (("s-minus", "s-out", "s-in"), ("s-plus",), ("s-pl",))
"""Of each the last task is learned; those together have the same tasks before it."""


@dataclass(frozen=True, kw_only=True)
class Tuned(AbstractSelection):
    """Own all layers, which begin as those of the earlier task that evidence would take."""

    name: ClassVar[str] = "tuned"
    reuses: ClassVar[bool] = True

    step: float = 1.0
    """Part of the step size."""

    def plan(self, start: TaskStart) -> Plan[Selected]:
        if not start.sources:
            return (yield from Fixed("all").plan(start))
        reused = reusing(start, ranked(start)[0][0])
        only = prepared(reused.only(Pattern("none").of(reused.net.depth)))
        make = partial(TriedPhase, Fixed("none"))
        return (yield from trained(make, only, only, self.step * only.config.learning_rate, 0.5, 1.0, share=1.0))


BY_ITSELF = TrainingConfig(specific_start="fresh")
METHODS: dict[str, dict[str, Any]] = {
    "single": {"search": Fixed("none"), "training": BY_ITSELF},
    "all-images": {"search": Fixed("none"), "training": replace(BY_ITSELF, patience=0, tolerance=1e9)},
    "em": {"search": EM(), "protect": Branch()},
    "evidence": {"search": Evidence(), "protect": Freeze()},
    "tuned": {"search": Tuned(), "protect": Freeze()},
    "tuned-less": {"search": Tuned(step=0.3), "protect": Freeze()},
    "mntdp": {"search": MNTDP(), "protect": Freeze()},
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is not in the file yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="CIFAR-100's parquet files")
    parser.add_argument("--seeds", default="0", help="such as 0,1,2")
    parser.add_argument("--methods", default="single,all-images,em,evidence,tuned")
    parser.add_argument("--streams", default="s-minus,s-out,s-in")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    lines = options.out.read_text().splitlines() if options.out.exists() else []
    known = {(found["method"], found["seed"], found["task"]) for found in map(json.loads, lines)}
    wanted = options.streams.split(",")
    if unknown := set(wanted) - {kind for kinds in STREAMS for kind in kinds}:
        parser.error(f"expected streams of {STREAMS}; got {', '.join(unknown)}")
    for seed, method, kinds in product(map(int, options.seeds.split(",")), options.methods.split(","), STREAMS):
        kinds = tuple(kind for kind in kinds if kind in wanted and (method, seed, kind) not in known)
        if not kinds:
            continue
        streams = [CtrlReader(kind=kind, source="cifar100", path=str(options.folder)).open(seed) for kind in kinds]  # type: ignore[arg-type]
        learner = Learner(small((3, 32, 32)), seed=seed, **METHODS[method])
        for index in range(6 if "protect" in METHODS[method] else 0):
            write(options.out, learn(learner, streams[0][index]) | {"method": method, "seed": seed, "stream": kinds[0]})
        for kind, stream in zip(kinds, streams, strict=True):
            task = replace(stream[6], name=kind)
            if method == "all-images" and (images := task.train.joined(task.valid)):
                task = replace(task, train=images)
            write(options.out, learn(copy.deepcopy(learner), task) | {"method": method, "seed": seed})


def learn(learner: Learner, task: Task) -> dict[str, object]:
    """Learn a task, and return what came of it."""
    started = time.process_time()
    record = learner.learn(task)
    return {
        "task": task.name,
        "accuracy": record.peak_accuracy,
        "configuration": record.configuration,
        "source": record.source,
        "explained": record.explained,
        "parameters": record.parameters_added,
        "seconds": round(time.process_time() - started, 1),
    }


def write(out: Path, found: dict[str, object]) -> None:
    """Add a line to the file."""
    with out.open("a") as file:
        file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
