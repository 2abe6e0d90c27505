"""The pretrained backbone on CIFAR-100 and on images unlike photographs, next to logistic regression on its features.

Each row is learned on each task by itself, with the settings of ``lasem learn``; a line of JSON a result, so that what
was stopped goes on. The step of a row is chosen by the validation images (``TrainingConfig.steps``).

    python -m benchmarks.pretrained cifar FOLDER --seeds 0,1,2 --out cifar.jsonl
    python -m benchmarks.pretrained unlike FOLDER --rows head,last-two --seeds 0 --out unlike.jsonl

FOLDER holds ``cifar100/`` and, for ``unlike``, ``small/`` as well: parquet files of images, labels and domains.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lasem import Fixed, HardSharing, Learner, LowRank, Task, TrainingConfig
from lasem.nets import AbstractNet
from lasem.nets.net import Backbone
from lasem.search import TAPS, AbstractSelection, AutoRGN, Evidence, SubTuning

SIDE = 96
Row = tuple[dict[str, Any], Any, str | AbstractSelection]
ROWS: dict[str, Row] = {
    "head": ({}, HardSharing(train_shared=False), "all"),
    "norm": ({"trainable": "norm"}, HardSharing(train_shared=False), "none"),
    "last-two": ({}, HardSharing(train_shared=False), "bottom-5"),
    "first-two": ({}, HardSharing(train_shared=False), "top-5"),
    "low-rank": ({}, LowRank(rank=4, train_shared=False), "all"),
    "all-owned": ({}, HardSharing(train_shared=False), "none"),
    "evidence": ({}, HardSharing(train_shared=False), Evidence()),
    "evidence-low-rank": ({}, LowRank(rank=4, train_shared=False), Evidence()),
    "subtuning": ({}, HardSharing(train_shared=False), SubTuning()),
    "taps": ({}, HardSharing(train_shared=False), TAPS()),
    "auto-rgn": ({}, HardSharing(train_shared=False), AutoRGN()),
}
"""What the network may change, the mechanism, and the configuration of each row, or the search for it."""


def main() -> None:
    """Measure, and print the table of all results so far."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("stream", choices=STREAMS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", default="logistic,head")
    parser.add_argument("--tasks", default="")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--steps", help="tried, as parts of the step size, such as 0.1,0.3,1")
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    done = [json.loads(line) for line in chosen.out.read_text().splitlines()] if chosen.out.exists() else []
    known = {(result["task"], result["row"], result["seed"]) for result in done}
    rows, wanted = chosen.rows.split(","), set(filter(None, chosen.tasks.split(",")))
    training = TrainingConfig() if chosen.epochs is None else TrainingConfig(epochs=chosen.epochs)
    if chosen.steps is not None:
        training = replace(training, steps=tuple(map(float, chosen.steps.split(","))))
    for seed in map(int, chosen.seeds.split(",")):
        for name, task_of in STREAMS[chosen.stream](chosen.folder, seed):
            waiting = [row for row in rows if (name, row, seed) not in known]
            if not waiting or (wanted and name not in wanted):
                continue
            task = task_of()
            for row in waiting:
                started = time.process_time()
                found = {"accuracy": PLAIN[row](task, seed)} if row in PLAIN else learned(task, row, seed, training)
                result = {"task": name, "row": row, "seed": seed, **found}
                done.append(result | {"seconds": round(time.process_time() - started, 1)})
                with chosen.out.open("a") as file:
                    file.write(json.dumps(done[-1]) + "\n")
    print(table(done))


def learned(task: Task, row: str, seed: int, training: TrainingConfig) -> dict[str, Any]:
    """Return the test accuracy of a row, its configuration, and the numbers that the task owns."""
    settings, sharing, configuration = ROWS[row]
    search = Fixed(configuration) if isinstance(configuration, str) else configuration
    learner = Learner(
        Backbone(**settings)(task.image_shape), sharing=sharing, search=search, training=training, seed=seed
    )
    record = learner.learn(task)
    return {
        "accuracy": record.peak_accuracy,
        "configuration": record.configuration,
        "parameters": learner.num_parameters(task.name),
    }


def logistic(task: Task, seed: int) -> float:
    """Return the test accuracy of logistic regression (scikit-learn's defaults) on standardised features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    net = Backbone()(task.image_shape)
    assert net.preprocessing is not None
    x, test = (
        features(net, split.standardised_by(net.preprocessing.mean, net.preprocessing.std))
        for split in (task.train, task.test)
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return float(model.fit(x.numpy(), task.train.labels.numpy()).score(test.numpy(), task.test.labels.numpy()))


def fine_tuned(task: Task, seed: int, rate: float = 2e-4, epochs: int = 15, batch: int = 20) -> float:
    """Return the test accuracy of all of the network, trained on in plain torch on training and validation images.

    Adam with a cosine schedule; normalisation keeps its pretrained statistics; images are mirrored and shifted.
    """
    import timm

    from lasem.nets.backbone import DEFAULT, _source

    torch.manual_seed(seed)
    net, expected = timm.create_model(DEFAULT, **_source(DEFAULT, None)), Backbone().preprocessing
    net.reset_classifier(task.num_classes)
    net.eval()
    (x, y), (test, labels) = (
        map(torch.cat, zip(*split.standardised_by(expected.mean, expected.std).batches(50), strict=True))
        for split in (task.train.joined(task.valid) or task.train, task.test)
    )
    optimiser = torch.optim.Adam(net.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * -(-len(y) // batch))
    for _ in range(epochs):
        for chosen in torch.split(torch.randperm(len(y)), batch):
            images = torch.where(torch.rand(len(chosen), 1, 1, 1) < 0.5, x[chosen].flip(-1), x[chosen])
            (i, j), side = torch.randint(17, (2,)).tolist(), images.shape[-1]
            images = torch.nn.functional.pad(images, (8, 8, 8, 8), mode="reflect")[..., i : i + side, j : j + side]
            loss = torch.nn.functional.cross_entropy(net(images), y[chosen])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        return float((net(test).argmax(dim=1) == labels).float().mean())


PLAIN: dict[str, Callable[[Task, int], float]] = {"logistic": logistic, "fine-tuned": fine_tuned}
"""Rows without lasem."""


@torch.no_grad()
def features(net: AbstractNet, split: Any) -> Tensor:
    """Return what the head gets of a split's images."""
    found = []
    for images, _ in split.batches(50):
        x = images
        for block in net.blocks:
            x = block.apply({}, x)
        found.append(x.flatten(1))
    return torch.cat(found)


Tasks = Iterator[tuple[str, Callable[[], Task]]]


def cifar(folder: Path, seed: int) -> Tasks:
    """Yield the paper's ten tasks of ten classes, 17 + 3 training and 100 test images a class."""
    from lasem.data.benchmarks import Cifar100Reader

    stream = Cifar100Reader(path=str(folder / "cifar100")).open(seed)
    for index in range(len(stream)):
        yield f"cifar-{index}", lambda index=index: stream[index]  # type: ignore[misc]


def unlike(folder: Path, seed: int) -> Tasks:
    """Yield flowers, steel, Omniglot's Latin, four domains of objects, and two tasks of CIFAR-100."""
    small, domains = folder / "small", ("amazon", "caltech10", "dslr", "webcam")
    yield "flowers", lambda: from_parquet(small / "flowers17_96.parquet", "", 20, seed)
    yield "steel", lambda: from_parquet(small / "neu_steel_defects_96.parquet", "", 20, seed)
    yield "latin", lambda: from_parquet(small / "omniglot_small.parquet", "Latin", 10, seed)
    for domain in domains:
        yield domain, lambda domain=domain: from_parquet(small / "office_caltech10_96.parquet", domain, 20, seed)  # type: ignore[misc]
    tasks = dict(cifar(folder, seed))
    yield "cifar-0", tasks["cifar-0"]
    yield "cifar-5", tasks["cifar-5"]


def tuning(folder: Path, seed: int) -> Tasks:
    """Yield tasks that no table of results reports, to choose settings by."""
    omniglot, tasks = folder / "small" / "omniglot_small.parquet", dict(cifar(folder, seed))
    for alphabet in ("Greek", "Balinese"):
        yield alphabet, lambda alphabet=alphabet: from_parquet(omniglot, alphabet, 10, seed)  # type: ignore[misc]
    yield "cifar-1", tasks["cifar-1"]
    yield "cifar-2", tasks["cifar-2"]


STREAMS = {"cifar": cifar, "unlike": unlike, "tuning": tuning}


def from_parquet(path: Path, domain: str, num_train: int, seed: int, side: int = SIDE) -> Task:
    """Make a task of all classes of a file, or of one of its domains.

    Of each class so many images train, 15 % of which validate, and at most 40 of the rest test.
    """
    import pyarrow.parquet
    from PIL import Image

    table = pyarrow.parquet.read_table(path).to_pylist()
    cells: dict[str, list[bytes]] = defaultdict(list)
    for cell in table:
        if not domain or cell["domain"] == domain:
            cells[str(cell["label"])].append(cell["image"]["bytes"])
    source, splits = np.random.default_rng(seed), [list[tuple[Any, str]]() for _ in range(3)]
    for name, encoded in sorted(cells.items()):
        order, num = source.permutation(len(encoded)), min(num_train, len(encoded) - 3)
        num_valid = max(1, round(0.15 * num))
        for place, position in enumerate(order[: num + 40]):
            image = (
                Image.open(io.BytesIO(encoded[position])).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
            )
            splits[2 if place >= num else 1 if place < num_valid else 0].append((np.asarray(image), name))
    train, valid, test = ((np.stack([x for x, _ in s]).transpose(0, 3, 1, 2), [y for _, y in s]) for s in splits)
    return Task.from_tensors(domain or path.stem, train=train, valid=valid, test=test)


def table(done: list[dict[str, Any]]) -> str:
    """Draw the mean accuracy of each task and row in per cent, over seeds."""
    cells: dict[tuple[str, str], list[float]] = defaultdict(list)
    for result in done:
        cells[result["task"], result["row"]].append(100 * result["accuracy"])
    rows, tasks = (list(dict.fromkeys(result[key] for result in done)) for key in ("row", "task"))
    lines = [f"| task | {' | '.join(rows)} |", f"|---|{'---|' * len(rows)}"]
    for name in tasks:
        means = (f"{statistics.mean(cells[name, row]):.1f}" if cells[name, row] else "-" for row in rows)
        lines.append(f"| {name} | {' | '.join(means)} |")
    whole = [[statistics.mean(cells[name, row]) for name in tasks if cells[name, row]] for row in rows]
    return "\n".join([*lines, f"| mean | {' | '.join(f'{statistics.mean(values):.1f}' for values in whole)} |"])


if __name__ == "__main__":
    main()
