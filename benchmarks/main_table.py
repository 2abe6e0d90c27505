"""LASEM against the static configurations on real images: the table of docs/results.md.

Ten tasks of ten classes, 17 training, 3 validation and 100 test images a class, the CIFAR network, default settings;
hard sharing, tensor factorisation and deconvolution with EM and with all layers transferred, and single-task learning
(no layer transferred), which is the same network for all three. One process for each run and one thread for each
process; runs that are there are not run again, and interrupted ones are resumed::

    python benchmarks/main_table.py --data FOLDER_WITH_PARQUET_FILES --out runs/main-table --workers 2
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lasem.metrics import Run, Statistic, aggregate, load_run, summarise

CELLS = {
    "none": ["--search", "fixed", "--search.configuration", "none"],
    **{
        f"{sharing} {name}": ["--sharing", sharing, *search]
        for sharing in ("hps", "tf", "dfcnn")
        for name, search in (
            ("all", ["--search", "fixed", "--search.configuration", "all"]),
            ("em", ["--search", "em"]),
        )
    },
}
QUANTITIES = {
    "peak_accuracy": "peak %",
    "final_accuracy": "final %",
    "forgetting_ratio": "forgetting ratio",
    "fraction_layers_shared": "layers transferred",
    "parameters_total": "parameters",
    "seconds_training": "training s",
}


def folder_of(out: Path, cell: str, seed: int) -> Path:
    return out / f"{cell.replace(' ', '-')}-{seed}"


def learn(cell: str, seed: int, arguments: argparse.Namespace) -> None:
    """One run, in a process of its own."""
    folder = folder_of(arguments.out, cell, seed)
    command = [sys.executable, "-m", "lasem", "run", "--quiet"]
    if (folder / "config.yaml").exists():
        command += ["--resume", str(folder)]
    else:
        command += ["--stream", "parquet", "--stream.path", str(arguments.data), "--stream.num_tasks", "10"]
        command += ["--stream.train_per_class", "17", "--stream.valid_per_class", "3", "--net", "cifar"]
        command += ["--stream.test_per_class", "100", "--threads", "1", "--seeds", str(seed), "--out", str(folder)]
        command += [*CELLS[cell], *arguments.settings]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    print(f"{cell}, seed {seed}: done", file=sys.stderr, flush=True)


def runs(out: Path, cell: str, seeds: list[int]) -> list[Run]:
    return [load_run(folder_of(out, cell, seed) / "seeds" / str(seed)) for seed in seeds]


def written(name: str, value: Statistic) -> str:
    if name.endswith("accuracy"):
        return f"{100 * value.mean:.1f} ± {100 * value.deviation:.1f}"
    if name.startswith("parameters"):
        return f"{value.mean:,.0f}"
    if name == "seconds_training":
        return f"{value.mean:.0f}"
    return f"{value.mean:.3f} ± {value.deviation:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--out", type=Path, default=Path("runs/main-table"), help="where the runs are kept")
    parser.add_argument("--seeds", default="0,1,2", help="seeds, by commas")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time")
    parser.add_argument("--cells", default=",".join(CELLS), help="rows of the table, by commas")
    parser.add_argument("settings", nargs="*", help="more settings for every run, after --")
    arguments = parser.parse_args()
    seeds, cells = [int(seed) for seed in arguments.seeds.split(",")], arguments.cells.split(",")
    with ThreadPoolExecutor(arguments.workers) as pool:
        for done in [pool.submit(learn, cell, seed, arguments) for seed in seeds for cell in cells]:
            done.result()
    print("| method | " + " | ".join(QUANTITIES.values()) + " |")
    print("|---" * (len(QUANTITIES) + 1) + "|")
    for cell in cells:
        found = aggregate([summarise(run) for run in runs(arguments.out, cell, seeds)])
        print(f"| {cell} | " + " | ".join(written(name, found[name]) for name in QUANTITIES) + " |")


if __name__ == "__main__":
    main()
