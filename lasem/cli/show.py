"""``lasem show``: what a growing model holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lasem.cli.model_options import model_parser, need, parse, percent, printable

if TYPE_CHECKING:
    from lasem.learner import ModelOverview

_EXAMPLES = """examples:
  lasem show model
  lasem show model --json
Where later tasks may have changed what a task answers, lasem evaluate MODEL --task NAME PATH measures it anew.
"""


def main(argv: Sequence[str]) -> int:
    """Run it; the exit code."""
    parser, options = model_parser(
        "show",
        "MODEL",
        "List the tasks of a model: which layers each transfers (T) or learned for itself (S), how accurate it was on "
        "validation and test images when it was learned and is on the test images now, and what it costs.",
        _EXAMPLES,
    )
    options.add_argument("--json", action="store_true", help="everything, as JSON")
    found = parse(parser, argv)
    if found is None:
        return 0
    need(parser, found, "model")

    from lasem.learner import GrowingModel

    overview = GrowingModel(found.model).show()
    if found.json:
        print(json.dumps(overview.to_plain(), indent=1))
    else:
        _print(overview)
    return 0


def _print(overview: ModelOverview) -> None:
    from rich.table import Table

    from lasem.cli.output import print_table

    table = Table(show_edge=False, header_style="")
    table.add_column("task")
    table.add_column("layers")
    for heading in ("classes", "images", "valid", "test", "now", "parameters", "bytes"):
        table.add_column(heading, justify="right")
    for task in overview.tasks:
        accuracies = task.valid_accuracy, task.test_accuracy, task.test_accuracy_now
        table.add_row(
            printable(task.name),
            task.configuration,
            str(len(task.classes)),
            f"{task.num_train:,}" if task.num_train else "-",
            *(percent(share, unit="") for share in accuracies),
            f"{task.num_parameters:,}",
            f"{task.num_bytes:,}",
        )
    print_table(table)
    channels, height, width = overview.image_shape
    colour = {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")
    count = len(overview.tasks)
    names = [printable(str(overview.settings[part]["name"])) for part in ("sharing", "search", "protect")]
    layers = f"{count} task{'s' if count != 1 else ''}, {overview.depth} layers"
    print("Accuracies in %: valid and test when the task was learned, now on the same test images.")
    print(f"\n{layers}, images {height}x{width} {colour}; {names[0]}, {names[1]}, protect {names[2]}")
    print(
        f"{overview.num_shared_parameters:,} parameters shared, {overview.num_parameters:,} in all, "
        f"{overview.num_bytes:,} bytes in {overview.directory}"
    )
    if not overview.keeps:
        print("Later tasks may have changed what earlier ones answer; lasem evaluate measures how accurate they are.")
    elif overview.num_kept_parameters:
        kept = f"{overview.num_kept_parameters:,}"
        print(f"{kept} of those shared are there so that earlier tasks answer the same bits for ever.")
    if overview.unfinished is not None:
        name = printable(overview.unfinished)
        print(f"Task '{name}' is not finished: the command that began it goes on, or lasem forget throws it away.")
