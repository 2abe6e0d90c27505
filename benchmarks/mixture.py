"""The mixture of all configurations as a predictor, next to an ensemble that takes as long to train.

Each later task of a stream is learned in every configuration, from the same start. The mixture answers with the mean
of their probabilities, weighted by softmax(0.3 sum_n log p(y_n | x_n, c)) over the validation images. The chosen one
is the most accurate on these, as ``exhaustive`` chooses, and the stream goes on with it. The ensembles answer with the
even mean of as many trainings with other seeds: of the chosen configuration, and of the task by itself from fresh
weights. A line of JSON a task::

    python -m benchmarks.mixture digits --seeds 0,1 --out mixture.jsonl
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lasem import Fixed, Learner, Task, TrainingConfig
from lasem.data.digits import DigitsReader
from lasem.data.task import AbstractReader
from lasem.nets import digits
from lasem.space import full
from paper.planted_stream import PlantedReader

STREAMS: dict[str, AbstractReader] = {"digits": DigitsReader(), "planted": PlantedReader()}
TEMPER = 0.3


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the means of all results in the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stream", choices=STREAMS)
    parser.add_argument("--seeds", default="0", help="such as 0,1,2")
    parser.add_argument("--tasks", type=int, default=3, help="after the first")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    training = TrainingConfig(epochs=options.epochs)
    for seed in map(int, options.seeds.split(",")):
        stream = STREAMS[options.stream].open(seed)
        learner = Learner(digits(stream[0].image_shape), search=Fixed("all"), training=training, seed=seed)
        learner.learn(stream[0])
        for index in range(1, 1 + options.tasks):
            learner, found = measured(learner, stream[index])
            with options.out.open("a") as file:
                file.write(json.dumps({"stream": options.stream, "seed": seed, "task": index, **found}) + "\n")
    done = [json.loads(line) for line in options.out.read_text().splitlines()]
    for name in [name for name in done[0] if name not in ("stream", "seed", "task")]:
        print(f"{name:<40}{100 * sum(of[name] for of in done) / len(done):.1f}")


def measured(learner: Learner, task: Task) -> tuple[Learner, dict[str, float]]:
    """Return the learner that goes on, and the test accuracy of each way to answer."""
    configurations = list(full(learner.net.depth))
    trained = [learned(learner, task, Fixed(str(configuration))) for configuration in configurations]
    valid = torch.stack([probabilities(one, task, task.valid) for one in trained])
    test = torch.stack([probabilities(one, task, task.test) for one in trained])
    right = task.valid.labels.expand(len(valid), -1)[..., None]
    likelihood = valid.gather(2, right).log().sum(dim=(1, 2))
    best = max(
        range(len(valid)),
        key=lambda c: (float(accuracy(valid[c], task.valid.labels)), configurations[c].num_transferred),
    )
    chosen = Fixed(str(configurations[best]))
    seeds = range(1000, 1000 + len(configurations))
    again = torch.stack([probabilities(learned(learner, task, chosen, seed), task, task.test) for seed in seeds])
    fresh = replace(learner.training, specific_start="fresh")
    alone = torch.stack(
        [probabilities(learned(learner, task, Fixed("none"), seed, fresh), task, task.test) for seed in seeds]
    )
    answers = {
        "chosen": test[best],
        "mixture, by q": (torch.softmax(TEMPER * likelihood, dim=0)[:, None, None] * test).sum(dim=0),
        "mixture, even": test.mean(dim=0),
        "ensemble of the chosen one": again.mean(dim=0),
        "ensemble of the task by itself": alone.mean(dim=0),
    }
    found = {name: float(accuracy(of, task.test.labels)) for name, of in answers.items()}
    for name, each in (("one of 16 configurations", test), ("one chosen, other seed", again), ("one by itself", alone)):
        found[name] = float(torch.stack([accuracy(of, task.test.labels) for of in each]).mean())
    return trained[best], found


def learned(learner: Learner, task: Task, search: Fixed, seed: int | None = None, training: Any = None) -> Learner:
    """Return a copy of a learner that has learned a task in one configuration."""
    other = copy.deepcopy(learner)
    other.seed = learner.seed if seed is None else seed
    other.method = replace(other.method, search=search)  # type: ignore[type-var]
    other.learn(task, training=training or learner.training)
    return other


def probabilities(learner: Learner, task: Task, split: Any) -> Tensor:
    """Return what a learner says of a split, shape (N, num_classes)."""
    return learner.predict(task.name, split.images.take(torch.arange(len(split))), probabilities=True)


def accuracy(answers: Tensor, labels: Tensor) -> Tensor:
    """Return the share of images whose most probable class is right."""
    return (answers.argmax(dim=1) == labels).double().mean()


if __name__ == "__main__":
    main()
