"""One task as a file that answers without lasem, and a page of JSON next to it that says how to ask.

Standardisation is part of the network: it takes pixels divided by 255, or on the scale of the floats that the task
learned from, in the model's size and channels; or a text's token ids. The page says which, and how an image file
becomes these pixels, as ``lasem.data.decode`` does it; of a text, the tokenizer is one more file. An ONNX file has the
same in its metadata.
"""

import io
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import asdict, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor, nn

from lasem.data import standardise
from lasem.data.task import check_task_name
from lasem.errors import ConfigError, StorageError
from lasem.files import regular_bytes, write_file
from lasem.learner.learner import Learner
from lasem.learner.lora import adapter_files
from lasem.learner.model_folder import TaskInfo, to_bytes
from lasem.methods.model import Model, prefixed
from lasem.methods.plain import run
from lasem.nets import AbstractNet, ClosingBlock, ConvBlock, LinearBlock, NormalisedBlock, OpeningBlock
from lasem.nets.backbone import as_timm, silent
from lasem.nets.cut_net import agree
from lasem.settings import check_choice
from lasem.training import Named, part_of

_OF_TASK = ("mean", "std", "temperature")

Operation = dict[str, Any]
MEANINGS = {
    "standardise": "x of shape (N, channels, height, width): (x - mean) / std, one number of each for a channel",
    "conv2d": "cross-correlation with weight (out, in, height, width), then + bias unless it is null; padding is the "
    "number of zeros put around x before it, [left, right, top, bottom]",
    "normalise": "(x - mean) / sqrt(variance + 1e-5) + bias, one number of each for a channel",
    "relu": "max(x, 0)",
    "max_pool2d": "the largest of each window, side and stride equal; at the right and the bottom, windows that x does "
    "not fill are kept (ceil_mode); padding is what is put around x before it and is never the largest, [left, right, "
    "top, bottom]",
    "average": "the mean over height and width, which become 1",
    "keep": "remember x as it is, until add",
    "add": "x + what was kept, which first gets channels of zeros after its own",
    "flatten": "(N, channels, height, width) to (N, channels * height * width), the width running fastest",
    "linear": "x @ weight.T + bias, weight (out, in)",
    "divide": "x / by, one number",
}
"""What each operation does to the values ``x`` that the one before gave."""
Format = Literal["onnx", "torch", "safetensors", "peft"]
_RESERVED = re.compile(r"(?i)con|prn|aux|nul|(com|lpt)[0-9]")
"""Names of devices on Windows, with any ending."""
_BY_ITSELF = "the network standardises them itself"
_IN_METADATA = ("classes", "input", "output")
"""Parts of the page that an ONNX file holds as JSON."""
SUFFIXES: dict[str, str] = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}


@final
class PlainNetwork(nn.Module):
    """From images to logits: (N, channels, height, width), float32 on the task's scale, to (N, num_classes).

    Holds its tensors as buffers, and standardises the images itself; logits are divided by the task's temperature.
    """

    mean: Tensor
    std: Tensor
    temperature: Tensor

    def __init__(self, answer: Callable[[Named, Tensor], Tensor], tensors: Named, info: TaskInfo) -> None:
        """Take tensors over, on the CPU; ``answer`` computes logits from them and standardised images."""
        super().__init__()
        self._answer, self._names = answer, (*tensors, *_OF_TASK)
        for name, value in {**tensors, **{key: torch.tensor(getattr(info, key)) for key in _OF_TASK}}.items():
            self.register_buffer(_place(name), value.detach().cpu().contiguous().clone())

    def forward(self, images: Tensor) -> Tensor:
        logits = self._answer(self.named_weights(), standardise(images, self.mean, self.std))
        return logits / self.temperature

    def named_weights(self) -> dict[str, Tensor]:
        """Return every tensor under its flat name: ``layer.0.weight``, ..., ``mean``, ``std`` and ``temperature``."""
        return {name: getattr(self, _place(name)) for name in self._names}


def _place(name: str) -> str:
    return name.replace(".", "_")


def plain_network(learner: Learner, name: str) -> PlainNetwork:
    """Return a learned task's network as a plain module, in evaluation, on the CPU: what ``export`` writes.

    Its weights are made once: no sharing mechanism is left in it, and no method unless the answer is no plain network.
    """
    info, net, method = learner.info(name), learner.net, learner.method
    tensors = method.plain_weights(net, learner.model, name)
    if tensors is not None:
        return PlainNetwork(partial(run, net), tensors, info).eval()
    needed = method.answers_with(learner.model, name)
    groups = {f"own.{number}": owner for number, owner in enumerate(needed.own)}
    tensors = prefixed("shared", needed.shared)
    for group, owner in groups.items():
        tensors |= prefixed(group, needed.own[owner])

    def answer(tensors: Named, x: Tensor) -> Tensor:
        own = {owner: part_of(tensors, group) for group, owner in groups.items()}
        return method.logits(net, Model(part_of(tensors, "shared"), own), name, x)

    return PlainNetwork(answer, tensors, info).eval()


def operations(net: AbstractNet) -> list[Operation]:
    """Return what a task's network computes from pixels to logits, in order.

    Weights have the names of ``PlainNetwork.named_weights``. Dropout is no part of it: only training drops. ConfigError
    if the network has layers that are code, such as those cut from a module.
    """
    known = ConvBlock | LinearBlock | OpeningBlock | ClosingBlock | NormalisedBlock
    strange = next((block for block in net.blocks if not isinstance(block, known)), None)
    if strange is not None:
        raise ConfigError(
            f"Expected layers that can be written down next to plain weights; got {type(strange).__name__}, which "
            f"computes code of its own. Use the format onnx or torch: those hold what is computed too."
        )
    found: list[Operation] = [{"operation": "standardise", "mean": "mean", "std": "std"}]
    _, height, width = net.image_shape
    kept = net.image_shape[0]
    flat = False
    for i, block in enumerate(net.blocks):
        named = {"weight": f"layer.{i}.weight", "bias": f"layer.{i}.bias"}
        if isinstance(block, LinearBlock):
            found += [] if flat else [{"operation": "flatten"}]
            found += [{"operation": "linear", **named}, {"operation": "relu"}]
            flat = True
            continue
        conv = block.conv if isinstance(block, OpeningBlock | ClosingBlock | NormalisedBlock) else block
        assert isinstance(conv, ConvBlock)
        if isinstance(block, OpeningBlock):
            found.append({"operation": "keep"})
            kept = conv.in_channels
        padding = conv.same_padding(height, width)
        found.append({"operation": "conv2d", **named, "stride": conv.stride, "padding": padding})
        if isinstance(block, NormalisedBlock):
            measured = {name: f"layer.{i}.{name}" for name in block.statistics}
            found[-1] |= {"bias": None}
            found.append({"operation": "normalise", **measured, "bias": named["bias"]})
        after: list[Operation] = [{"operation": "relu"}]
        if isinstance(block, ClosingBlock):
            after.insert(block.added_last, {"operation": "add", "channels_of_zeros": conv.out_channels - kept})
        found += after
        if conv.pool > 1:
            pooled = conv.pool_padding(-(-height // conv.stride), -(-width // conv.stride))
            found.append({"operation": "max_pool2d", "window": conv.pool, "padding": pooled, "ceil_mode": True})
        if isinstance(block, NormalisedBlock) and block.averaged:
            found.append({"operation": "average"})
        height, width = conv.output_size(height), conv.output_size(width)
    found += [] if flat else [{"operation": "flatten"}]
    for i in range(len(net.head.hidden) + 1):
        found += [{"operation": "relu"}] if i else []
        found.append({"operation": "linear", "weight": f"head.weight.{i}", "bias": f"head.bias.{i}"})
    return [*found, {"operation": "divide", "by": "temperature"}]


def export(
    learner: Learner, name: str, format: Format, out: str | Path, *, model: Path | None = None
) -> tuple[Path, ...]:
    """Write a task's network and, next to it, what its inputs and outputs are.

    Args:
        learner: has learned the task.
        name: the task's.
        format: ``onnx`` runs in onnxruntime; ``torch`` is a ``torch.export`` program, read by ``torch.export.load``;
            ``safetensors`` are the plain weights, and the page next to them says what is computed with them; of a
            model of timm they are its state dict, with the task's head as its classifier. ``peft`` is a folder NAME in
            the folder ``out``, which PEFT reads as an adapter of the encoder (``lasem.learner.lora``).
        out: the file; or a folder, made if it is not there, that gets NAME with the format's ending: what ends in a
            slash, is a folder already, or has no ending.
        model: the model's folder, into which nothing is exported.

    Returns:
        The file, the page, and the tokenizer if the network has one. An earlier export of the same task is replaced.

    Raises:
        TaskError: if the task was not learned.
        ConfigError: if there is no such format, a library that it needs, or plain weights would not be enough.
        StorageError: if the place is in the model's folder or another file's, if it cannot be written, or if the
            network has an operation that the format has not.
    """
    network, net, classes = plain_network(learner, name), learner.net, list(learner.classes(name))
    check_choice("format", format, get_args(Format))
    check_task_name(name)  # it names a file, and a model's folder may come from a stranger
    reserved = "_" if _RESERVED.fullmatch(name.partition(".")[0].rstrip()) else ""
    if format == "peft":
        written = {Path(out, reserved + name, file): data for file, data in adapter_files(learner, name).items()}
        about, *others, config = written
        _check_place(config, model)
        _check_free([config, about, *others], name)
        for place, data in written.items():
            write_file(place, data)
        return config, *others, about
    file = Path(out)
    if str(out).endswith(("/", os.sep)) or os.path.isdir(file) or not (file.suffix or os.path.isfile(file)):
        file /= f"{reserved}{name}{SUFFIXES[format]}"
    tokenizer = net.vocabulary and net.vocabulary.tokenizer and net.vocabulary.tokenizer()
    endings = (".json", ".tokenizer.json") if tokenizer else (".json",)
    beside = [file.with_name(f"{file.name}{ending}") for ending in endings]
    _check_place(file, model)
    _check_free([file, *beside], name)
    described: dict[str, Any] = {}
    info = learner.info(name)
    of_timm = format == "safetensors" and net.description().get("kind") == "timm"
    if of_timm:
        data, described["timm"] = _timm(network, net, info)
    elif format == "safetensors":
        weights = network.named_weights()
        shapes = {
            f"layer.{i}.{key}": shape for i, block in enumerate(net.blocks) for key, shape in block.shapes.items()
        }
        if any(key not in weights or tuple(weights[key].shape) != size for key, size in shapes.items()):
            raise ConfigError("The model's method answers with more than the network's weights; use onnx or torch.")
        computed = operations(net)
        used = {operation["operation"] for operation in computed}
        kinds = [(type(part).__name__, asdict(part) if is_dataclass(part) else {}) for part in (*net.blocks, net.head)]  # type: ignore[arg-type]
        described = {
            "computes": computed,
            "operations": {name: meaning for name, meaning in MEANINGS.items() if name in used},
            "layers": [{"kind": kind, **settings} for kind, settings in kinds],
        }
        data = to_bytes(weights)
    else:
        data = (_onnx if format == "onnx" else _program)(network, torch.zeros(2, *net.image_shape))
    page = {
        "task": name,
        "file": file.name,
        "format": format,
        "classes": classes,
        "input": _input(net, info.scale, "standardise them: (x - mean) / std" if of_timm else _BY_ITSELF),
        "output": {
            "name": "logits",
            "dtype": "float32",
            "shape": ["N", len(classes)],
            "means": "softmax: probability",
            "temperature": info.temperature,
            "calibration": "the network divides its logits by the temperature itself",
        },
        **described,
    }
    if tokenizer:
        page["input"]["tokenizer"] = {
            "file": beside[-1].name,
            "library": "tokenizers",
            "version": tokenizer.version,
            "use": f"Tokenizer.from_file(file), no_padding(), enable_truncation({net.image_shape[-1]})",
        }
    if format == "onnx":
        data = _with_metadata(data, {"task": name} | {key: json.dumps(page[key]) for key in _IN_METADATA})
    write_file(beside[0], json.dumps(page, indent=1) + "\n")
    if tokenizer:
        write_file(beside[-1], tokenizer.json)
    write_file(file, data)  # last: what a kill leaves behind is known by its page
    return file, *beside


def _check_place(file: Path, model: Path | None) -> None:
    if model is not None and file.resolve().is_relative_to(model.resolve()):
        raise StorageError(f"Expected a place outside of the model's own folder {model}; got {file}. Give another one.")


def _check_free(files: Sequence[Path], name: str) -> None:
    """Raise StorageError if there is anything that is no export of the task: a file, the page, and what goes along."""
    there = next((path for path in files if os.path.lexists(path)), None)
    if there is None:
        return
    held, (file, page_file, *_) = None, files
    with suppress(OSError, ValueError, RecursionError):  # whatever else it is, it is no page of ours
        held = json.loads(regular_bytes(page_file))
    named = str(held.get("file")).casefold() if isinstance(held, dict) else ""  # file systems may not know the case
    held = held.get("task") if isinstance(held, dict) and named == file.name.casefold() else None
    if held != name:
        what = "is no export of a task" if held is None else f"belongs to the export of task '{held}'"
        raise StorageError(
            f"Expected a place for the export of task '{name}'; {there} is there already and {what}. Give "
            f"another place (--out), or remove that file."
        )


def _timm(network: PlainNetwork, net: AbstractNet, info: TaskInfo) -> tuple[bytes, dict[str, Any]]:
    """Make a state dict of timm, compared with the network itself on random images, and say how it is used."""
    model, made = as_timm(net, network.named_weights(), info.temperature)
    x = torch.randn(2, *net.image_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        agreed = agree(model(x), network(x * network.std[:, None, None] + network.mean[:, None, None]))
    if not agreed:
        raise ConfigError(f"timm's {made['model_name']} with a classifier computes otherwise; use onnx or torch.")
    return to_bytes(model.state_dict()), {
        "use": "timm.create_model(**create_model).load_state_dict(safetensors.torch.load_file(file)), then eval()",
        "create_model": made,
        "mean": info.mean,
        "std": info.std,
    }


def _input(net: AbstractNet, scale: float | None, standardised: str) -> dict[str, Any]:
    channels, height, width = net.image_shape
    found = {"name": "images", "dtype": "float32", "shape": ["N", channels, height, width]}
    if net.vocabulary is not None:
        return {**found, "texts": f"token ids, 0 to {net.vocabulary.size - 1}, and -1 after a text's last token"}
    of_files = scale is not None and channels in (1, 3)
    pixels = "floats as the task's training images were, no pixels of a known scale"
    if scale is not None:
        pixels = "0 to 255, divided by 255" if scale == 1 else f"0 to 255, divided by 255 and multiplied by {scale:g}"
    return {
        **found,
        "channels": {1: ["grey"], 3: ["red", "green", "blue"]}.get(channels, channels),
        "scale": scale,
        "pixels": f"{pixels}; {standardised}",
        "preprocessing": _preprocessing(net, scale) if scale and of_files else [],
        "resize": asdict(net.resize()) if of_files and height == width else None,
    }


def _preprocessing(net: AbstractNet, scale: float) -> list[str]:
    """What ``lasem.data.decode`` does with a file, one step after another; every step's result has 8 bits."""
    (channels, height, width), how = net.image_shape, net.resize()
    colour = (
        "to grey: (19595 red + 38470 green + 7471 blue + 32768) >> 16 (Pillow's convert('L')); grey stays as it is"
        if channels == 1
        else "to red, green, blue (Pillow's convert('RGB')); grey is taken three times"
    )
    kind = how.interpolation.upper()
    if how.crop is None:
        resized = (
            f"if it is not {height} x {width}, resize to that height and width, whatever its proportions: Pillow's "
            f"resize(({width}, {height}), {kind})"
        )
    else:
        resized = (
            f"resize a square in its middle, of side s = {how.crop:g} min(width, height), to {height} x {width}: "
            f"Pillow's resize(({width}, {height}), {kind}, box=((width - s) / 2, (height - s) / 2, (width + s) / 2, "
            f"(height + s) / 2)), nothing rounded"
        )
    if how.interpolation != "nearest":
        resized += f". That is {how.interpolation} with antialiasing, a filter widened by the reduction"
    if how.crop is None and how.interpolation == "bilinear":
        resized += "; torch's interpolate(mode='bilinear', antialias=True), rounded, differs by 1 of 255 at most"
    return [
        "decode the file's first image, colours as they are stored: colour profiles are not applied",
        "16-bit grey: value >> 8, the upper 8 bits",
        "transparency, if any pixel has it: over white, value * alpha + 255 * (1 - alpha) (Pillow's alpha_composite)",
        colour,
        "turn it upright as its EXIF orientation says (Pillow's ImageOps.exif_transpose)",
        resized,
        f"divide by 255{'' if scale == 1 else f', multiply by {scale:g}'}; height before width, channels first",
    ]


def _onnx(network: PlainNetwork, example: Tensor) -> bytes:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except (ImportError, RuntimeError) as error:
        raise ConfigError("The format onnx needs onnx and onnxscript: pip install 'lasem[export]'.") from error
    with _explained("onnx"):
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
        assert program is not None
        return bytes(program.model_proto.SerializeToString())


def _with_metadata(data: bytes, values: dict[str, str]) -> bytes:
    import onnx

    model = onnx.load_model_from_string(data)
    onnx.helper.set_model_props(model, values)
    return bytes(model.SerializeToString())


def _program(network: PlainNetwork, example: Tensor) -> bytes:
    with _explained("torch"), torch.no_grad():
        program = torch.export.export(network, (example,), dynamic_shapes={"images": {0: torch.export.Dim("batch")}})
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
        return buffer.getvalue()


@contextmanager
def _explained(format: str) -> Iterator[None]:
    """Exporters warn of their own affairs and print; what they fail at is said in one line."""
    try:
        with silent("torch.onnx", "onnxscript"), warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise StorageError(f"The network cannot be written as {format}: {first}") from error
