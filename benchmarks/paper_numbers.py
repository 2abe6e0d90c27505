"""The paper's first table on its own images: what was measured, kept by seed, and the table of it.

A comparison of five seeds takes days, so its runs are made a few at a time and their numbers are kept::

    lasem compare --methods-file benchmarks/cifar100.yaml --stream cifar100 --stream.path FOLDER --net cifar --out RUNS
    python -m benchmarks.paper_numbers RUNS     # adds the finished runs to docs/results/cifar100.jsonl
    python -m benchmarks.paper_numbers --all-images FOLDER --seeds 0,1   # adds single-task learning on all images
    python -m benchmarks.paper_numbers          # prints the table

With ``--stream tiny`` the same of Tiny ImageNet, in tasks of the same size, and with ``--stream digits`` of digits:
docs/results/tiny.jsonl and digits.jsonl. Where ``--all-images`` has a folder, digits need none: any name will do.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import ctrl
from lasem import Learner
from lasem.data import AbstractReader, DigitsReader, ParquetReader, TaskStream
from lasem.data.benchmarks.hub import Cifar100Reader
from lasem.errors import ConfigError
from lasem.metrics import difference_over_seeds, mean_of_forgetting_ratios, statistic, summarise
from lasem.nets import Net, cifar, digits
from lasem.report.experiment import INDEX, finished_runs, plain_settings, read_index
from lasem.report.numbers import in_words, plus_minus
from paper.published import BRUTE_FORCE
from paper.recipe import SHARING_TITLES

FOLDER = Path(__file__).parents[1] / "docs" / "results"
STREAMS: dict[str, tuple[Callable[[str], AbstractReader], Net]] = {
    "cifar100": (lambda path: Cifar100Reader(path=path), cifar()),
    "tiny": (
        lambda path: ParquetReader(path=path, num_tasks=10, train_per_class=17, valid_per_class=3, test_per_class=100),
        cifar(),
    ),
    "digits": (lambda _: DigitsReader(), digits()),
}
"""By name, what reads them from a folder, and the network that learns them."""
SEARCHES = {
    "lasem": "LASEM",
    "bottom-1": "transfer the first layer",
    "bottom-2": "transfer the first two",
    "bottom-3": "transfer the first three",
    "all": "transfer all",
    "exhaustive": "brute force",
    "evidence": "evidence",
}
ALL_IMAGES, EVIDENCE = "none-all-images", "evidence-hps"
TITLES = {"none": "single-task learning", ALL_IMAGES: "the same, on the validation images as well"} | {
    f"{search}-{sharing}": f"{title}, {of}"
    for sharing, of in SHARING_TITLES.items()
    for search, title in SEARCHES.items()
}
"""By method, in the table's order."""
Results = dict[str, dict[int, dict[str, Any]]]
"""Lines of the file by method and seed."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Keep a comparison's numbers, if one is named, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="?", help="what lasem compare has written to")
    parser.add_argument(
        "--all-images", type=Path, metavar="FOLDER", help="the stream's files, to learn each task by itself"
    )
    parser.add_argument("--seeds", default="0", help="of that, such as 0,1,2")
    parser.add_argument("--stream", choices=STREAMS, default="cifar100")
    parser.add_argument("--kept", type=Path, help="another file of numbers")
    chosen = parser.parse_args(arguments)
    open_folder, net = STREAMS[chosen.stream]
    reader, path = open_folder(str(chosen.all_images)), chosen.kept or FOLDER / f"{chosen.stream}.jsonl"
    if chosen.runs is not None:
        keep(chosen.runs, reader.name, path)
    if chosen.all_images is not None:
        for seed in sorted(set(map(int, chosen.seeds.split(","))) - read(path).get(ALL_IMAGES, {}).keys()):
            stream = reader.open(seed)
            add(learned_from_all_images(stream, net, seed), path)
    results = read(path)
    print(table(results, published=chosen.stream == "cifar100"))
    print(f"\nevidence above single-task learning on all images: {difference(results[EVIDENCE], results[ALL_IMAGES])}")


def read(path: Path) -> Results:
    """Read what was kept."""
    found: Results = defaultdict(dict)
    for line in path.read_text().splitlines() if path.exists() else []:
        one = json.loads(line)
        found[one["method"]][one["seed"]] = one
    return found


def keep(runs: Path, expected: str, path: Path) -> None:
    """Add a line for each finished run that the file does not have: accuracies of each task, and what they cost."""
    for method, by_seed in finished_runs(runs, *read_index(runs / INDEX)).items():
        for seed, (run, config) in by_seed.items():
            if (stream := plain_settings(config)["stream"]["name"]) != expected:
                raise ConfigError(f"Expected runs of {expected}; {runs} has those of {stream}. Name another folder.")
            summary = summarise(run)
            line = {
                "method": method,
                "seed": seed,
                "peak": [round(float(one), 4) for one in run.peak_accuracies],
                "final": [round(float(one), 4) for one in run.final_accuracies],
                "configurations": [task.configuration for task in run.evaluated_tasks],
                "parameters": int(summary.parameters_total),
                "seconds": round(summary.seconds_training, 3),
            }
            add(line, path)


def learned_from_all_images(stream: TaskStream, net: Net, seed: int) -> dict[str, Any]:
    """Learn each task by itself, from its validation images as well, for as many epochs as all; return its line."""
    torch.set_num_threads(1)
    learner = Learner(net, seed=seed, **ctrl.METHODS["all-images"])
    started, accuracies = time.perf_counter(), list[float]()
    for task in stream:
        images = task.train.joined(task.valid)
        assert images is not None
        accuracies.append(round(learner.learn(replace(task, train=images)).peak_accuracy, 4))
    return {
        "method": ALL_IMAGES,
        "seed": seed,
        "peak": accuracies,
        "final": accuracies,
        "configurations": ["S" * net.depth] * len(accuracies),
        "parameters": learner.num_parameters(),
        "seconds": round(time.perf_counter() - started, 3),
    }


def add(line: dict[str, Any], path: Path) -> None:
    """Write a line of the file, if it has none of the method and seed."""
    if line["seed"] not in read(path).get(line["method"], {}):
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def table(results: Results, *, published: bool) -> str:
    """Draw each method's peak, final accuracy and time, next to the published peak if that is of the same stream."""
    lines = [
        f"| | seeds |{' published peak, % |' * published} peak, % | above single-task | LASEM above it | final, % |"
        " LASEM above it in the end | final / peak | parameters, M | time |",
        f"|---|---|{'---|' * published}---|---|---|---|---|---|---|---|",
    ]
    for method in (method for method in TITLES if results.get(method)):
        rows, lasem = results[method], results.get(f"lasem-{method.rpartition('-')[2]}", {})
        there = BRUTE_FORCE.get(("cifar100-10", method, "peak_accuracy"))
        cells = [
            TITLES[method],
            str(len(rows)),
            *([f"{100 * there.mean:.1f}" if there else "-"] if published else []),
            shown([100 * np.mean(one["peak"]) for one in rows.values()]),
            difference(rows, results["none"]),
            difference(lasem, rows),
            shown([100 * np.mean(one["final"]) for one in rows.values()]),
            difference(lasem, rows, "final"),
            shown([mean_of_forgetting_ratios(one["peak"], one["final"]) for one in rows.values()], 3),
            shown([one["parameters"] / 1e6 for one in rows.values()], 2),
            times(rows, lasem),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(values: Sequence[Any], digits: int = 1) -> str:
    """Write a mean and, unless it rounds to 0, its deviation over seeds."""
    words = plus_minus(statistic([float(value) for value in values]), lambda value: f"{value:.{digits}f}")
    return words.removesuffix(f" ± {0:.{digits}f}")


def difference(first: dict[int, dict[str, Any]], second: dict[int, dict[str, Any]], quantity: str = "peak") -> str:
    """Write how far the first method is above the second, task by task over the seeds that both have."""
    both = sorted(first.keys() & second.keys()) if first is not second else []
    found = difference_over_seeds([np.array(first[s][quantity]) - np.array(second[s][quantity]) for s in both])
    return in_words(found).replace(" points", "").replace("−", "-") if found.num_pairs else "-"


def times(rows: dict[int, dict[str, Any]], lasem: dict[int, dict[str, Any]]) -> str:
    """Write how long a method trained, in units of LASEM's on the same seeds."""
    both = rows.keys() & lasem.keys()
    of_lasem = sum(lasem[seed]["seconds"] for seed in both)
    return f"{sum(rows[seed]['seconds'] for seed in both) / of_lasem:.1f}" if of_lasem else "-"


if __name__ == "__main__":
    main()
