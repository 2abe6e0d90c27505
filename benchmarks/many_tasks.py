"""Many tasks on one backbone: all answers for one image, a mixed batch, and what a thousand tasks cost.

The tasks are copies of two that were learned for a moment, with random heads and noise in the stage that they own. What
is compared takes turns in one process; next to it is the ratio of the multiplications alone.

    OMP_NUM_THREADS=1 python -m benchmarks.many_tasks
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import torch
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lasem import Fixed, Freeze, GrowingModel, HardSharing, Learner, Task, TrainingConfig
from lasem.nets.net import Backbone

HEAD, STAGE = "TTTTTTT", "TTTTTTS"
"""A task that owns only its head, and one that owns the last stage as well."""


def main() -> None:
    """Measure, and print each result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--open", type=Path, help="open this model, ask it, and print what that cost")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.open is not None:
        print(json.dumps(opened(chosen.open)))
        return
    with tempfile.TemporaryDirectory() as place:
        measure(Path(place), chosen.turns)


def measure(folder: Path, num_turns: int) -> None:
    """Measure with models in a folder, and print each result."""
    learner = learned()
    stages = multiplications(learner)
    say(f"multiplications of each stage: {', '.join(f'{share:.3f}' for share in stages)}")
    for num_stages, num_heads in ((0, 100), (50, 50), (100, 0)):
        model = copies(learner, {HEAD: num_heads, STAGE: num_stages}, folder / f"{num_stages}")
        floor = (1 + max(num_stages - (num_heads == 0), 0) * stages[-1]) / (num_stages + num_heads)
        found = all_at_once(model, num_turns)
        say(f"{num_heads} own a head, {num_stages} the last stage too: {found:.3f} (arithmetic {floor:.3f})")
    for kind in (HEAD, STAGE):
        found = mixed(copies(learner, {kind: 32}, folder / kind), num_turns)
        say(f"64 images of 32 tasks, {kind}: {found:.2f} (arithmetic 1.00)")
    for num in (10, 1000):
        copies(learner, {HEAD: num}, folder / f"{num}-tasks")
        command = [sys.executable, "-m", "benchmarks.many_tasks", "--open", str(folder / f"{num}-tasks")]
        turns = [json.loads(subprocess.check_output(command)) for _ in range(num_turns)]
        costs = (f"{what} {median(turn[what] for turn in turns):.2f}" for what in turns[0])
        say(f"{num} tasks: {', '.join(costs)}")


say = partial(print, flush=True)


def learned(side: int = 224) -> Learner:
    """Return a learner of two tasks that were trained for an epoch, on images of a side."""
    net = Backbone()((3, side, side))
    learner = Learner(net, sharing=HardSharing(train_shared=False), protect=Freeze(), training=TrainingConfig(epochs=1))
    images, labels = torch.randint(0, 256, (20, 3, side, side), dtype=torch.uint8), torch.arange(20) % 10
    for name in (HEAD, STAGE):
        learner.method = replace(learner.method, search=Fixed(name))  # type: ignore[type-var]
        few = images[:10], labels[:10]
        learner.learn(Task.from_tensors(name, train=(images, labels), valid=few, test=few))
    return learner


def copies(learner: Learner, wanted: Mapping[str, int], folder: Path) -> GrowingModel:
    """Save a model of altered copies of the two tasks."""
    found, generator = Learner(learner.net, learner.method, training=learner.training), torch.Generator().manual_seed(0)

    def altered(value: Tensor) -> Tensor:
        noise = torch.randn(value.shape, generator=generator)
        return value + noise * (0.01 * float(value.std()) if value.numel() > 1 else 0)

    own, routes = {}, {}
    for kind, num in wanted.items():
        for k in range(num):
            name = f"{kind}-{k}"
            own[name] = {
                key: torch.randn(value.shape, generator=generator) / 30 if key.startswith("head.") else altered(value)
                for key, value in learner.model.own[kind].items()
            }
            routes[name] = learner.model.routes[kind]
            found._tasks[name] = replace(learner.info(kind), name=name)
    found._num_learned = len(own)
    found._model = learner.model.having(own=own, routes=routes)
    found.save(folder)
    return GrowingModel(folder)


def multiplications(learner: Learner) -> list[float]:
    """Return the share of each stage in the multiplications of one image."""
    x, counted = torch.zeros(1, *learner.net.image_shape), []
    for block in learner.net.blocks:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            x = block.apply({}, x)
        counted.append(counter.get_total_flops())
    return [flops / sum(counted) for flops in counted]


def all_at_once(model: GrowingModel, num_turns: int) -> float:
    """Return the time of all tasks' answers for an image at once, relative to one task after another."""
    image = photo(model.directory / "image.png", 0)

    def one_by_one() -> list[float]:
        return [answer.probabilities[0] for name in model.tasks for answer in model.predict(name, [image])]

    def at_once() -> list[float]:
        return [answer.probabilities[0] for answer in model.predict_all([image])]

    return ratio(at_once, one_by_one, num_turns)


def mixed(model: GrowingModel, num_turns: int) -> float:
    """Return the time of 64 images, two for each of 32 tasks, relative to 64 images of one task."""
    names = list(model.tasks) * 2
    questions = [(photo(model.directory / f"image-{k}.png", k), name) for k, name in enumerate(names)]
    images = [image for image, _ in questions]
    alone = [next(iter(model.predict(name, [image]))).probabilities[0] for image, name in questions]
    together = [answer.probabilities[0] for answer in model.predict_many(questions)]
    assert torch.allclose(torch.tensor(alone), torch.tensor(together), atol=1e-5)

    turns = []
    for _ in range(num_turns):
        many, one = (
            seconds(ask)
            for ask in (lambda: list(model.predict_many(questions)), lambda: list(model.predict(names[0], images)))
        )
        turns.append(many / one)
    return median(turns)


def ratio(fast: Callable[[], list[float]], slow: Callable[[], list[float]], num_turns: int) -> float:
    """Return how long the fast way takes, relative to the slow one, once both gave the same."""
    assert torch.allclose(torch.tensor(fast()), torch.tensor(slow()), atol=1e-5)
    return median(seconds(fast) / seconds(slow) for _ in range(num_turns))


def seconds(run: Callable[[], object]) -> float:
    """Return how long a call takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def photo(path: Path, seed: int) -> str:
    """Write an image of random colours."""
    colours = torch.randint(0, 256, (8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    Image.fromarray(colours.numpy()).resize((224, 224)).save(path)
    return str(path)


def opened(folder: Path) -> dict[str, float]:
    """Return seconds and MiB that a model takes in a process of its own."""
    image, before = photo(folder / "image.png", 0), peak()
    model = GrowingModel(folder)
    found = {"open": seconds(lambda: model.tasks), "opened MiB": peak() - before}
    (name, *_) = model.tasks
    found["first answer"] = seconds(lambda: list(model.predict(name, [image])))
    found["next answer"] = seconds(lambda: list(model.predict(name, [image])))
    found["answered MiB"] = peak() - before
    found["first answer of all"] = seconds(lambda: list(model.predict_all([image])))
    found["next answer of all"] = seconds(lambda: list(model.predict_all([image])))
    return found | {"all answered MiB": peak() - before}


def peak() -> float:
    """Return the most memory that the process has had, in MiB. ``ru_maxrss`` would count its parent's, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


if __name__ == "__main__":
    main()
