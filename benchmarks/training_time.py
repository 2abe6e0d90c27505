"""What methods cost to train, as multiples of one of them, by the runs of a ``lasem compare``.

Runs that share a machine slow each other, and a mean over seeds says as much about the machine as about the method. The
seeds of a method do much the same work in the same epoch of the same task, though, and rarely are all of them disturbed
in it: so the fastest seed of each epoch counts, and the sum over epochs. With more seeds it comes nearer to what an
idle machine would take.

Run ``python benchmarks/training_time.py FOLDER``, the folder that ``lasem compare`` has written to.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from lasem.metrics import load_runs


def fastest_seconds(folder: Path) -> dict[str, float]:
    """Method -> seconds of optimisation steps over all epochs, each of the seed that was fastest in it."""
    seconds: dict[str, dict[tuple[int, int], float]] = defaultdict(lambda: defaultdict(lambda: math.inf))
    for place in sorted(folder.glob("*-*/seeds")):
        method = place.parent.name.rpartition("-")[0]
        for run in load_runs(place.parent):
            position = {task.task: task.index for task in run.tasks}  # seeds draw tasks of other names
            for timing in run.timings:
                if timing.epoch is not None and timing.task in position:
                    key = position[timing.task], timing.epoch
                    seconds[method][key] = min(seconds[method][key], timing.seconds_training)
    return {method: sum(by_epoch.values()) for method, by_epoch in seconds.items()}


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Print a line for each method, the cheapest first, and return the multiples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what lasem compare has written to")
    parser.add_argument("--unit", default="none", help="the method whose time is 1 (default: none)")
    options = parser.parse_args(arguments)
    seconds = fastest_seconds(options.folder)
    if not seconds.get(options.unit):
        parser.error(f"expected runs of {options.unit} in {options.folder}; got {', '.join(seconds) or 'none'}")
    multiples = {method: value / seconds[options.unit] for method, value in seconds.items()}
    for method in sorted(multiples, key=lambda method: multiples[method]):
        print(f"{method:<20} {multiples[method]:>6.2f} {seconds[method]:>9.0f} s")
    return multiples


if __name__ == "__main__":
    main()
