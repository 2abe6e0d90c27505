"""``lasem export``: write one task as a plain network."""

from __future__ import annotations

from collections.abc import Sequence

from lasem.cli.model_options import add_task, model_parser, need, parse

_EXAMPLES = """examples:
  lasem export model --task cats --format onnx --out cats.onnx      runs in onnxruntime
  lasem export model --task cats --format torch --out cats.pt2      torch.export.load reads it
  lasem export model --task cats --format safetensors --out folder
"""


def main(argv: Sequence[str]) -> int:
    """Run it; the exit code."""
    parser, options = model_parser(
        "export",
        "MODEL --task NAME --format onnx|torch|safetensors [--out PATH]",
        "Write one task as a network that needs no lasem, and beside it a page of JSON with the classes' names and "
        "what the network takes: pixels divided by 255, which it standardises itself.",
        _EXAMPLES,
    )
    add_task(options)
    options.add_argument("--format", metavar="NAME", help="onnx, torch or safetensors")
    options.add_argument(
        "--out", metavar="PATH", default=".", help="a file, or a folder (no ending) for NAME.onnx (default: .)"
    )
    found = parse(parser, argv)
    if found is None:
        return 0
    need(parser, found, "model", "task", "format")

    from lasem.learner import GrowingModel

    for path in GrowingModel(found.model).export(found.task, found.format, found.out):
        print(path)
    return 0
