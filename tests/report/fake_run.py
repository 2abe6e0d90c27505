"""A made-up experiment whose curves look like real ones: the searches converge, some tasks are forgotten a little."""

import itertools
import json
import math
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from lasem.records import EpochRecord, EvaluationRecord, Record, TaskRecord, TimingRecord, to_json
from lasem.report import write_accuracy_matrix
from lasem.report.comparison import INDEX

ENVIRONMENT = {
    "lasem": "0.2.0",
    "python": "3.11.9",
    "torch": "2.13.0+cpu",
    "platform": "Linux-6.1-x86_64",
    "cores": "2",
    "device": {"type": "cpu", "name": "x86_64"},
    "command": ["lasem", "run", "--config", "my config.yaml", "--output", "runs/cifar-em"],
}
CONFIG = """\
stream: {name: cifar-100, num_tasks: 10}
learner: {sharing: hard, search: em}
training:
  learning_rate: 0.0005
seeds: [0, 1, 2]
"""


METHODS = {
    "lasem": {
        "sharing": {"name": "hps"},
        "search": {"name": "em", "groups": []},
        "training": {"epochs": 3, "patience": 1},
    },
    "ewc-9": {"method": {"name": "ewc", "strength": 9.0}, "training": {"epochs": 3, "patience": 2}},
}


def make_records(
    seed: int, names: tuple[str, ...], *, num_layers: int = 4, num_epochs: int = 40
) -> tuple[list[Record], list[TimingRecord]]:
    """What a learner with ``2 ** num_layers`` configurations would leave behind."""
    chance = random.Random(seed)
    configurations = tuple("".join(c) for c in itertools.product("ST", repeat=num_layers))
    records: list[Record] = []
    timings: list[TimingRecord] = []
    learned: dict[str, float] = {}
    shared, added = 48_000, 0
    for index, name in enumerate(names):
        candidates = configurations if index else ("T" * num_layers,)
        winner, rival = chance.sample(range(len(candidates)), 2) if index else (0, 0)
        commit = num_epochs // 4 + chance.randrange(max(1, num_epochs // 4)) if index else 1
        limit = 0.38 + 0.08 * chance.random() + 0.03 * min(index, 4)
        best, best_epoch = 0.0, 1
        scores = [chance.gauss(0, 0.6) for _ in candidates]
        for epoch in range(1, num_epochs + 1):
            progress = epoch / max(commit, 1)
            for c in range(len(candidates)):
                scores[c] += chance.gauss(0, 0.15) + (0.12 if c in (winner, rival) else 0.0) + (0.1 * (c == winner))
            weights = [math.exp(s * min(progress, 1.0) * 2) for s in scores]
            probabilities = [w / sum(weights) for w in weights]
            if index and epoch >= commit:
                probabilities = [float(c == winner) for c in range(len(candidates))]
            valid = limit * (1 - math.exp(-4 * epoch / num_epochs)) + chance.gauss(0, 0.012) + 0.08
            if valid > best:
                best, best_epoch = valid, epoch
            records.append(
                EpochRecord(
                    task=name,
                    epoch=epoch,
                    loss=2.3 * math.exp(-2 * epoch / num_epochs),
                    valid_accuracy=valid,
                    configuration=candidates[max(range(len(candidates)), key=probabilities.__getitem__)],
                    probabilities=tuple(probabilities),
                    num_evaluated=1 if epoch >= commit else len(candidates),
                )
            )
            seconds = 0.4 + 0.1 * chance.random()
            timings.append(TimingRecord(task=name, epoch=epoch, seconds_training=seconds, seconds_evaluating=0.1))
        configuration = candidates[winner]
        own = 6_500 + round(42_000 * configuration.count("S") / num_layers)
        added += own
        records.append(
            TaskRecord(
                task=name,
                index=index,
                classes=tuple(f"{name}/{k}" for k in range(10)),
                configuration=configuration,
                configurations=candidates,
                best_epoch=best_epoch,
                num_epochs=num_epochs,
                commit_epoch=commit if index else None,
                valid_accuracy=best,
                peak_accuracy=best - 0.01,
                parameters_added=own,
                parameters_shared=shared,
                parameters_total=shared + added,
            )
        )
        transferred = configuration.count("T") / num_layers
        learned = {n: max(0.1, a - 0.03 * transferred * chance.random() + 0.005) for n, a in learned.items()}
        learned[name] = best - 0.012
        records.append(EvaluationRecord(after_task=name, accuracies=dict(learned)))
        timings.append(TimingRecord(task=name, epoch=None, seconds_training=0.0, seconds_evaluating=0.5))
    return records, timings


def changed(records: Iterable[Record], kind: type[Record], task: str | None = None, **fields: Any) -> list[Record]:
    """The same records, those of a kind (and task) with other fields, each a value or a function of the record."""

    def change(record: Record) -> Record:
        return replace(record, **{k: value(record) if callable(value) else value for k, value in fields.items()})

    return [change(r) if isinstance(r, kind) and task in (None, r.task) else r for r in records]


def task_names(num_tasks: int) -> tuple[str, ...]:
    return tuple(f"cifar-{number}" for number in range(num_tasks))


def write_seed(run_dir: Path, seed: int, records: list[Record], timings: list[TimingRecord]) -> None:
    folder = run_dir / "seeds" / str(seed)
    folder.mkdir(parents=True)
    (folder / "records.jsonl").write_text("".join(to_json(r) + "\n" for r in records), encoding="utf-8")
    if timings:
        (folder / "timings.jsonl").write_text("".join(to_json(r) + "\n" for r in timings), encoding="utf-8")
    write_accuracy_matrix(records, folder / "accuracy_matrix.csv")


def write_run(run_dir: Path, *, num_seeds: int = 1, names: tuple[str, ...] = task_names(4), **settings: int) -> Path:
    """A finished experiment on disk."""
    for seed in range(num_seeds):
        write_seed(run_dir, seed, *make_records(seed, names, **settings))
    (run_dir / "config.yaml").write_text(CONFIG, encoding="utf-8")
    (run_dir / "environment.json").write_text(json.dumps(ENVIRONMENT), encoding="utf-8")
    return run_dir


def write_runs(directory: Path, seeds: tuple[int, ...] = (0, 1), num_tasks: int = 3) -> Path:
    """Two methods, each seed in a folder of its own."""
    for number, (label, settings) in enumerate(METHODS.items()):
        for seed in seeds:
            folder = directory / f"{label}-{seed}"
            write_seed(folder, seed, *make_records(seed + 10 * number, task_names(num_tasks), num_epochs=3))
            plain = {"preset": "default", "stream": {"name": "digits"}, **settings, "seeds": [seed], "threads": 1}
            (folder / "config.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))
            (folder / "environment.json").write_text(json.dumps({"num_tasks": num_tasks}))
    index = {"methods": list(METHODS), "seeds": list(seeds), "environment": ENVIRONMENT}
    (directory / INDEX).write_text(json.dumps(index))
    return directory
