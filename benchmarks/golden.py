"""Golden records: what a change that must alter no result is checked against, on one machine.

Run every case through the command, with three tasks and three epochs, and keep the loss of every mini-batch (to the
bit) and ``records.jsonl``. Numbers differ between machines, so they are not committed::

    python benchmarks/golden.py make golden.json     # before the change
    python benchmarks/golden.py check golden.json    # after it; exit code 1 if anything differs
    python benchmarks/golden.py check golden.json lasem-hps ewc     # some cases alone

The cases ``cifar-*`` need real images, a folder of the Hub's layout named by ``--cifar``; without it they are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from lasem.cli.main import main as lasem

RENEWED = "--training.specific_shrink 0.25 "
"""What a task of few epochs leaves out by default: these cases are short, and check what longer ones do."""

STEP = " --training.learning_rate 5e-4"
OWN_STEP = ("lasem-paper", "hat")
"""Cases whose preset or method has another step."""

DIGITS = {
    "lasem-hps": RENEWED + "--method lasem --sharing hps",
    "lasem-tf": RENEWED + "--method lasem --sharing tf",
    "lasem-dfcnn": RENEWED + "--method lasem --sharing dfcnn",
    "lasem-paper": "--preset paper",
    "deep-em": RENEWED + "--search deep-em",
    "darts": "--method darts",
    "exhaustive": RENEWED + "--method exhaustive",
    "prefix": RENEWED + "--method prefix",
    "fixed-probability": "--method fixed-probability",
    "penalty": "--method all --protect penalty",
    "branch": RENEWED + "--method lasem --protect branch",
    "prognn": "--method prognn",
    "den": "--method den",
    "ewc": "--method ewc",
    "hat": "--method hat",
    "apd": "--method apd",
    "wsn": "--method wsn",
    "gated": "--method gated",
    "joint": "--method joint",
    "one-network": "--method one-network",
}
CIFAR = {"cifar-lasem": RENEWED + "--method lasem", "cifar-none": "--method none"}


def run(options: str, folder: Path) -> dict[str, Any]:
    """Run one case; its losses in hexadecimal, and its records."""
    losses: list[str] = []
    backward: Any = torch.Tensor.backward

    def recorded(self: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        losses.append(float(self.item()).hex())
        backward(self, *args, **kwargs)

    torch.Tensor.backward = recorded  # type: ignore[method-assign]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            code = lasem(["run", "--quiet", "--threads", "1", "--out", str(folder), *options.split()])
    finally:
        torch.Tensor.backward = backward  # type: ignore[method-assign]
    if code:
        raise SystemExit(f"lasem run {options} ended with {code}")
    records = (folder / "seeds" / "0" / "records.jsonl").read_text(encoding="utf-8")
    return {"losses": losses, "records": records.splitlines()}


def cases(cifar: Path) -> dict[str, str]:
    """Every case's options."""
    digits = "--stream.num_tasks 3 --training.epochs 3"
    found = {name: f"{options} {digits}" for name, options in DIGITS.items()}
    found = {name: options + ("" if name in OWN_STEP else STEP) for name, options in found.items()}
    if cifar.is_dir():
        images = (
            f"--stream cifar100 --stream.path {cifar} --stream.classes drawn --stream.num_tasks 3 --training.epochs 2 "
            "--net cifar --training.augment none" + STEP
        )
        found |= {name: f"{options} {images}" for name, options in CIFAR.items()}
    return found


def difference(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """Where two results of a case part; None if nowhere."""
    known = [json.loads(record).keys() for record in before["records"]]
    for part in ("losses", "records"):
        for number, (one, other) in enumerate(zip(before[part], now[part], strict=False)):
            if part == "records":  # what earlier records do not have is no difference
                entries = json.loads(one), json.loads(other)
                one, other = (json.dumps({k: of.get(k) for k in known[number]}) for of in entries)
            if one != other:
                return f"{part}[{number}]: {one} before, {other} now"
        if len(before[part]) != len(now[part]):
            return f"{len(before[part])} {part} before, {len(now[part])} now"
    return None


def main() -> int:
    """Make or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "check"))
    parser.add_argument("file", type=Path)
    parser.add_argument("only", nargs="*", help="cases; all if none is named")
    parser.add_argument("--cifar", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "cifar100")
    found = parser.parse_args()
    before = json.loads(found.file.read_text()) if found.what == "check" else {}
    results, differing = {}, 0
    for name, options in cases(found.cifar).items():
        if found.only and name not in found.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            results[name] = run(options, Path(folder) / "run")
        if found.what == "check":
            found_difference = difference(before[name], results[name]) if name in before else "not in the file"
            differing += found_difference is not None
            print(f"{name}: {found_difference or 'equal'}", flush=True)
    if found.what == "make":
        found.file.write_text(json.dumps(results))
        print(f"{len(results)} cases in {found.file}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
