"""``lasem forget``: give up a task of a growing model."""

from __future__ import annotations

from collections.abc import Sequence

from lasem.cli.model_options import add_task, add_wait, model_parser, need, parse, read_wait

_EXAMPLES = """examples:
  lasem forget model --task cats
"""


def main(argv: Sequence[str]) -> int:
    """Run it; the exit code."""
    parser, options = model_parser(
        "forget",
        "MODEL --task NAME",
        "Remove a task, and the shared knowledge that no other task uses; the others answer as before. Of a task that "
        "is not finished, remove what was learned so far. It cannot be undone.",
        _EXAMPLES,
    )
    add_task(options)
    add_wait(options)
    found = parse(parser, argv)
    if found is None:
        return 0
    need(parser, found, "model", "task")
    wait = read_wait(found)

    from lasem.learner import GrowingModel

    GrowingModel(found.model).forget(found.task, wait=wait)
    print(f"{found.task}: forgotten")
    return 0
