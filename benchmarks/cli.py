"""``lasem bench``: what searches cost, as ratios measured in one run."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from lasem.cli.main import FAILURE
from lasem.errors import ConfigError, StorageError
from lasem.settings import Range, check_choice

if TYPE_CHECKING:
    from benchmarks.measure import Row


def bench(
    *,
    only: tuple[str, ...] | None = None,
    smoke: bool = False,
    json: Path | None = None,
    threads: Annotated[int, Range(least=0, most=1024)] = 1,
    device: str = "cpu",
) -> int:
    """Measure what searches cost, on random images.

    What is compared takes turns, and most results are ratios, which mean much the same on every machine. Next to each
    stands what it would be if nothing took time but the multiplications. All of it takes about half an hour; nothing
    else should run meanwhile.

    Args:
        only: some of the benchmarks (default: all).
        smoke: take seconds instead of minutes, only to see that it works.
        json: write the results there, too.
        threads: threads of the CPU; 0: as many as torch chooses.

    Examples:
        lasem bench --only correct,tree
        correct         fast paths compute what slow ones do; the only one that can fail
        tree            a step over all configurations / a plain step
        task            a task with EM / the same with one configuration, for each mechanism
        exhaustive      a task with brute force / the same with EM
        default         a task with the default search, evidence / one that owns all, for both default networks
        precision       a step in bfloat16 / the same in float32, for the paper's network and both default ones
        depth           a step of deep EM / a plain step, up to 50 layers
        configurations  a step over all configurations, by their number
        tasks           learning and predicting, by the number of tasks learned
        batch           images a second, by the size of the mini-batch
    """
    if only == ():
        raise ConfigError("--only needs at least one benchmark; got none. See lasem bench --help.")
    return _measure(only or (), smoke, threads, device, json)


def _measure(names: tuple[str, ...], smoke: bool, threads: int, device: str, path: Path | None) -> int:
    import torch

    from benchmarks.measure import WrongResultError
    from benchmarks.suite import BENCHMARKS, FULL, SMOKE, run_benchmarks
    from lasem.experiments.runner import cpu_threads
    from lasem.learner.learner import find_device

    for name in names:
        check_choice("--only", name, BENCHMARKS)
    find_device(device)
    if path is not None:
        _check_writable(path)
    rows: list[Row] = []
    with cpu_threads(threads):
        print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, {platform.machine()}")
        try:
            for row in run_benchmarks(replace(SMOKE if smoke else FULL, device=device), names):
                _print(row, first=not rows or rows[-1].benchmark != row.benchmark)
                rows.append(row)
        except WrongResultError as error:
            print(f"lasem: wrong result: {error}", file=sys.stderr)
            return FAILURE
        used = torch.get_num_threads()
    if path is not None:
        _write(path, {"torch": torch.__version__, "device": device, "threads": used, "smoke": smoke}, rows)
    return 0


def _print(row: Row, *, first: bool) -> None:
    if first:
        print(f"\n{row.benchmark:<58}{'measured':>40}{'arithmetic':>12}")
    floor = "" if row.floor is None else f"{row.floor:.2f}"
    value = f"{row.value:.2f}" if row.value >= 0.01 or row.value == 0 else f"{row.value:.1e}"
    print(f"  {row.setting:<34} {row.what:<52}{value:>9}{floor:>12}", flush=True)


def _check_writable(path: Path) -> None:
    if not path.parent.is_dir() or path.is_dir():
        raise StorageError(f"Expected a file to write in a folder that is there; got {path}.")


def _write(path: Path, made_with: dict[str, Any], rows: Sequence[Row]) -> None:
    text = json.dumps({**made_with, "rows": [asdict(row) for row in rows]}, indent=1)
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"Expected to write {path}; {error.strerror}.") from error
