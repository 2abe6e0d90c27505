"""``lasem predict``: let a growing model answer for images."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterator, Sequence

from lasem.cli.main import FAILURE
from lasem.cli.model_options import add_device, add_task, model_parser, need, parse, printable
from lasem.errors import ConfigError, DataError, check_choice
from lasem.settings import read_value

_EXAMPLES = """examples:
  lasem predict model --task cats new/*.png
  lasem predict model --task cats folder --top 3 --format jsonl
  find . -name '*.jpg' | lasem predict model --task cats -
"""


def main(argv: Sequence[str]) -> int:
    """Run it; the exit code: 1 if any image could not be read."""
    parser, options = model_parser(
        "predict",
        "MODEL --task NAME IMAGES...",
        "Write the likeliest class and its probability for each image. What cannot be read is told on the side, and "
        "the other images go on.",
        _EXAMPLES,
    )
    parser.add_argument("images", metavar="IMAGES", nargs="*", help="files, folders, or - for a list on standard input")
    add_task(options)
    options.add_argument("--top", metavar="K", default="1", help="the K likeliest classes (default: 1)")
    options.add_argument("--format", metavar="{csv,jsonl}", default="csv", help="csv, or jsonl for JSON lines")
    add_device(options)
    found = parse(parser, argv)
    if found is None:
        return 0
    need(parser, found, "model", "task")
    if not found.images:
        parser.error("expected images, folders of images, or - for a list on standard input; got none")
    check_choice("--format", found.format, ("csv", "jsonl"))
    top: int = read_value(found.top, int, "--top")
    if top < 1:
        raise ConfigError(f"--top must be at least 1; got {top}.")

    from lasem.learner import GrowingModel

    num_skipped = 0

    def skip(_: str, error: DataError) -> None:
        nonlocal num_skipped
        num_skipped += 1
        print(f"lasem: {printable(str(error))}", file=sys.stderr)

    answers = GrowingModel(found.model, device=found.device).predict(
        found.task, _places(found.images), top=top, skip=skip
    )
    table = csv.writer(sys.stdout, lineterminator="\n")
    first = True
    for answer in answers:
        if found.format == "jsonl":
            best = [
                {"class": name, "probability": round(p, 6)}
                for name, p in zip(answer.classes, answer.probabilities, strict=True)
            ]
            print(json.dumps({"image": answer.image, "predictions": best}))
            continue
        if first:
            more = [f"{what}_{k}" for k in range(2, len(answer.classes) + 1) for what in ("class", "probability")]
            table.writerow(["image", "class", "probability", *more])
        pairs = zip(answer.classes, answer.probabilities, strict=True)
        table.writerow([answer.image, *(cell for name, p in pairs for cell in (printable(name), f"{p:.6f}"))])
        first = False
    if num_skipped:
        print(f"lasem: {num_skipped} could not be read.", file=sys.stderr)
    return FAILURE if num_skipped else 0


def _places(words: Sequence[str]) -> Iterator[str]:
    for word in words:
        if word == "-":
            for line in sys.stdin.buffer:
                if name := os.fsdecode(line.rstrip(b"\r\n")):
                    yield name
        else:
            yield word
