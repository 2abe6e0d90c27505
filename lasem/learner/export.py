"""One task taken home: a file that answers without lasem, and a page of JSON beside it that says how to ask.

The preprocessing is part of the network: it takes pixels divided by 255, in the model's size and channels; or a text's
token ids.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from lasem.errors import ConfigError, StorageError, check_choice
from lasem.files import write_file
from lasem.learner.model_files import to_bytes
from lasem.learner.plain_network import PlainNetwork
from lasem.nets import AbstractNet

Format = Literal["onnx", "torch", "safetensors"]
SUFFIXES: dict[str, str] = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}


def export(
    network: PlainNetwork, net: AbstractNet, name: str, classes: tuple[str, ...], format: Format, out: Path
) -> tuple[Path, Path]:
    """Write a task's network and, beside it, what its inputs and outputs are.

    Args:
        network: the task's.
        net: which layers it has.
        name: the task's.
        classes: their names, in the order of the logits.
        format: ``onnx`` runs in onnxruntime; ``torch`` is a ``torch.export`` program, read by ``torch.export.load``;
            ``safetensors`` are the plain weights, whose layers the page beside them describes.
        out: the file, or a folder that gets NAME with the format's ending.

    Returns:
        The file and the page.

    Raises:
        ConfigError: if there is no such format, or a library that it needs.
        StorageError: if it cannot be written, or the network has an operation that the format has not.
    """
    check_choice("format", format, get_args(Format))
    file = out / f"{name}{SUFFIXES[format]}" if out.is_dir() else out
    beside = file.with_name(f"{file.name}.json")
    data = {"onnx": _onnx, "torch": _program, "safetensors": _weights}[format](network.eval())
    page = {
        "task": name,
        "file": file.name,
        "format": format,
        "classes": list(classes),
        "input": _input(net),
        "output": {"name": "logits", "dtype": "float32", "shape": ["N", len(classes)], "means": "softmax: probability"},
        **({"layers": _layers(net)} if format == "safetensors" else {}),
    }
    write_file(file, data)
    write_file(beside, json.dumps(page, indent=1, ensure_ascii=False) + "\n")
    return file, beside


def _input(net: AbstractNet) -> dict[str, Any]:
    channels, height, width = net.image_shape
    if net.vocabulary is not None:
        return {
            "name": "images",
            "dtype": "float32",
            "shape": ["N", channels, height, width],
            "texts": f"token ids, 0 to {net.vocabulary.size - 1}, and -1 behind a text's last token",
        }
    return {
        "name": "images",
        "dtype": "float32",
        "shape": ["N", channels, height, width],
        "channels": {1: ["grey"], 3: ["red", "green", "blue"]}.get(channels, channels),
        "pixels": "0 to 255, divided by 255; the network standardises them itself",
        "resize": "bilinear, to height and width, whatever the sides were",
    }


def _onnx(network: PlainNetwork) -> bytes:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except (ImportError, RuntimeError) as error:
        raise ConfigError("The format onnx needs onnx and onnxscript: pip install 'lasem[export]'.") from error
    with _explained("onnx"):
        program = torch.onnx.export(
            network,
            (network.example(),),
            dynamo=True,
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
        assert program is not None
        return bytes(program.model_proto.SerializeToString())


def _program(network: PlainNetwork) -> bytes:
    with _explained("torch"), torch.no_grad():
        program = torch.export.export(
            network, (network.example(),), dynamic_shapes={"images": {0: torch.export.Dim("batch")}}
        )
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
        return buffer.getvalue()


def _weights(network: PlainNetwork) -> bytes:
    return to_bytes(network.named_weights())


def _layers(net: AbstractNet) -> list[dict[str, Any]]:
    """Each layer's kind and settings, input side first, and at the end the head's."""
    return [
        {"kind": type(part).__name__, **(asdict(part) if is_dataclass(part) else {})}  # type: ignore[arg-type]
        for part in (*net.blocks, net.head)
    ]


@contextmanager
def _explained(format: str) -> Iterator[None]:
    """Exporters warn of their own affairs and print; what they fail at is told in one line."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise StorageError(f"The network cannot be written as {format}: {first}") from error
    finally:
        logger.setLevel(before)
