"""``lasem evaluate``: measure a task of a growing model."""

from __future__ import annotations

import json
from collections.abc import Sequence

from lasem.cli.model_options import add_columns, add_device, add_task, model_parser, need, parse, percent, printable

_EXAMPLES = """examples:
  lasem evaluate model --task cats photos/test
  lasem evaluate model --task cats test.parquet --json
"""


def main(argv: Sequence[str]) -> int:
    """Run it; the exit code."""
    parser, options = model_parser(
        "evaluate",
        "MODEL --task NAME PATH",
        "Measure how many labelled images the model answers rightly now. Of data with splits, the test split counts.",
        _EXAMPLES,
    )
    parser.add_argument("path", metavar="PATH", nargs="?", help="a folder CLASS/*.png, or a parquet file or folder")
    add_task(options)
    add_columns(options)
    options.add_argument("--json", action="store_true", help="as JSON")
    add_device(options)
    found = parse(parser, argv)
    if found is None:
        return 0
    need(parser, found, "model", "task")
    if found.path is None:
        parser.error("expected labelled images behind the model's folder; got none")

    from lasem.learner import GrowingModel, Source

    source = Source(path=found.path, image_column=found.image_column, label_column=found.label_column)
    result = GrowingModel(found.model, device=found.device).evaluate(found.task, source)
    if found.json:
        by_class = {name: {"num_images": n, "num_right": right} for name, (n, right) in result.by_class.items()}
        print(
            json.dumps(
                {
                    "task": found.task,
                    "accuracy": result.accuracy,
                    "num_images": result.num_images,
                    "num_right": result.num_right,
                    "classes": by_class,
                },
                indent=1,
            )
        )
        return 0
    print(f"{found.task}: {percent(result.accuracy)} ({result.num_right} of {result.num_images} images)")
    width = max(len(printable(name)) for name in result.by_class)
    for name, (count, right) in result.by_class.items():
        print(f"  {printable(name):{width}}  {percent(right / count):>7} ({right} of {count})")
    return 0
