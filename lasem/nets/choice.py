"""A network as settings: what ``--net NAME`` means for images of a size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Literal, final

from lasem.errors import ConfigError
from lasem.nets.backbone import DEFAULT, default_is_installed, from_timm, timm_preprocessing
from lasem.nets.block import AbstractNet, InitialWeights, PoolBorder, Preprocessing, Size
from lasem.nets.cut_net import Statistics, Trainable
from lasem.nets.encoders import Pooling
from lasem.nets.net import NETS, ImageShape, for_images, of_paper
from lasem.nets.pretrained import from_transformers
from lasem.settings import Range, Settings, check_choice

AUTO = "auto"
"""The network that suits the images' size."""
_LEAST, _ENLARGED = 64, 96
"""Side of images below which a pretrained network enlarges them, and to which."""
_LARGEST_SMALL = 40
"""Side of images up to which a small network learns from the start."""


@final
@dataclass(frozen=True, kw_only=True)
class NetChoice(Settings):
    """One of lasem's networks, fitted to the images.

    Raises:
        ConfigError: if there is no network of that name, or a setting is out of range.
    """

    name: str = AUTO
    """auto, or one of ``lasem.nets.NETS``."""
    among: Literal["all", "paper"] = "all"
    """Which networks auto chooses from: all (``lasem.nets.for_images``), or the paper's alone."""
    hidden: tuple[Annotated[int, Range(least=1, most=2**20)], ...] | None = None
    """Hidden layers of the head, which belong to the task, such as 256,64; none: the network's own."""
    dropout: Annotated[float, Range(least=0, below=1)] | None = None
    """Share of the features that training drops, once, where the head begins; none: the network's own."""
    initial: InitialWeights | None = None
    """How plain weights start: ``he`` (normal, by the layer's inputs) or ``paper``; none: the network's own."""
    pool_border: PoolBorder | None = None
    """Where pooling fills up a side that its window does not divide: ``end``, or ``both`` as in the paper; none: the
    network's own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("NetChoice.name", self.name, (AUTO, *NETS))

    def advice(self, image_shape: ImageShape) -> str:
        """Return what a person should know who has chosen no network for images of this shape; empty for nothing."""
        if self.name != AUTO or self.among != "all" or max(image_shape[1:]) <= _LARGEST_SMALL or image_shape[1] == 1:
            return ""
        extra = "" if default_is_installed() else " (pip install 'lasem[pretrained]')"
        return (
            f"Network: a small one, which learns from the start. For photographs --net timm:{DEFAULT}{extra} is better."
        )

    def __call__(self, image_shape: ImageShape) -> AbstractNet:
        """Build the network for images of (channels, height, width)."""
        auto = for_images if self.among == "all" else of_paper
        net: Any = (auto if self.name == AUTO else NETS[self.name])(image_shape)
        other = {name: value for name, value in vars(self).items() if name not in ("name", "among")}
        given = {name: value for name, value in other.items() if value is not None}
        built: AbstractNet = replace(net, **given)
        return built


@final
@dataclass(frozen=True, kw_only=True)
class Backbone(Settings):
    """A model of another library, cut into stages that may be transferred.

    Raises:
        ConfigError: if there is no model of that name, or a setting is out of range.
    """

    name: str = f"timm:{DEFAULT}"
    """``timm:NAME``."""
    weights: str | None = None
    """File with the weights of a pretrained model, safetensors or a checkpoint."""
    pretrained: bool | None = None
    """Take the weights from the library's hub, which keeps them on this machine; false: start at random. none: the
    weights in ``weights``, or those that the extra ``pretrained`` brings."""
    image_size: Annotated[int, Range(least=1, most=8192)] | None = None
    """Side of the images: files are resized to it, and the network enlarges images in memory to it. none: files to
    the model's own side; in memory those of fewer than 64 pixels to 96."""
    groups: str = "stages"
    """What decides together: ``stages`` (at most eight), ``blocks``, or the number of blocks in each group, such as
    4,4,4."""
    rank: Size | None = None
    """Rank of the change that a task's own stages are, where the backbone's weights stay as they are; none: they have
    weights of their own."""
    trainable: Trainable = "all"
    """What a task's own stages may change: ``all``, or only the scales and offsets of normalisation (``norm``)."""
    statistics: Statistics = "pretrained"
    """Running statistics of normalisation in a task's own stages: the backbone's (``pretrained``), or ``measured``."""
    options: tuple[str, ...] = ()
    """Further options of the library for the model, such as drop_path_rate=0."""
    hidden: tuple[Annotated[int, Range(least=1, most=2**20)], ...] = ()
    """Hidden layers of the head, which belong to the task."""
    dropout: Annotated[float, Range(least=0, below=1)] = 0.0
    """Share of the features that training drops, once, where the head begins."""

    @property
    def preprocessing(self) -> Preprocessing:
        """How the model expects its images."""
        found = timm_preprocessing(self._model)
        return replace(found, side=self.image_size or found.side)

    def _side(self, image_shape: ImageShape | None) -> int | None:
        """The side to which the network enlarges images."""
        side = max(image_shape[1:]) if image_shape else 0
        wanted = self.image_size or (_ENLARGED if side < _LEAST else 0)
        return wanted if image_shape and wanted > side else None

    @property
    def _model(self) -> str:
        return self.name.removeprefix("timm:")

    def __call__(self, image_shape: ImageShape | None = None) -> AbstractNet:
        """Build the network for images of (channels, height, width)."""
        if self.weights is None and self.pretrained is None and not (self._model == DEFAULT and default_is_installed()):
            raise ConfigError(
                f"Expected where the weights of {self.name} are from: --net.weights FILE, --net.pretrained true (the "
                f"library's hub), or --net.pretrained false (random)."
            )
        return from_timm(
            self._model,
            pretrained=self.pretrained is not False,
            weights=self.weights,
            image_shape=image_shape,
            side=self._side(image_shape),
            groups=_groups(self.groups),
            rank=self.rank,
            trainable=self.trainable,
            statistics=self.statistics,
            hidden=self.hidden,
            dropout=self.dropout,
            **dict(map(_option, self.options)),
        )


@final
@dataclass(frozen=True, kw_only=True)
class Encoder(Settings):
    """An encoder of Hugging Face transformers for texts or images, cut into groups of layers that may be transferred.

    Raises:
        ConfigError: if a setting is out of range.
    """

    name: str = "hf:"
    """``hf:FOLDER`` with config.json, model.safetensors and, for texts, tokenizer.json; or ``hf:NAME`` on the hub."""
    weights: str | None = None
    """Safetensors file with the weights, where the folder has none."""
    pretrained: bool | None = None
    """Of a name: download it from the hub, which keeps it on this machine; false: start at random. none: the folder's
    weights, or what is on this machine."""
    groups: str = "stages"
    """What decides together: the embeddings for themselves, and the layers as ``stages`` (at most seven), as ``blocks``
    (each for itself), or the number of layers in each group, such as 4,4,4."""
    length: Size | None = None
    """Tokens of the longest text; longer ones are cut. none: as many as the model is made for, at most 512."""
    pooling: Pooling | None = None
    """What the head gets: the ``mean`` of all tokens or the ``first``; none: as the model's folder says, else the mean
    of a text's."""
    rank: Size | None = None
    """As of a model of timm: rank of the change that a task's own layers are; none: they have weights of their own."""
    options: tuple[str, ...] = ()
    """Further settings of the model's configuration, such as num_hidden_layers=3."""
    hidden: tuple[Annotated[int, Range(least=1, most=2**20)], ...] = ()
    """Hidden layers of the head, which belong to the task."""
    dropout: Annotated[float, Range(least=0, below=1)] = 0.0
    """Share of the features that training drops, once, where the head begins."""

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How the model expects its images."""
        return self._net.preprocessing

    def __call__(self, image_shape: ImageShape | None = None) -> AbstractNet:
        """Build the network, whose images or texts are of the model's own shape."""
        return self._net

    @cached_property
    def _net(self) -> AbstractNet:
        return from_transformers(
            self.name.removeprefix("hf:"),
            groups=_groups(self.groups),
            pooling=self.pooling,
            pretrained=self.pretrained,
            weights=self.weights,
            rank=self.rank,
            hidden=self.hidden,
            dropout=self.dropout,
            length=self.length,
            **dict(map(_option, self.options)),
        )


LIBRARIES: dict[str, type[Backbone] | type[Encoder]] = {"timm:": Backbone, "hf:": Encoder}
"""What names of models of other libraries begin with."""
Choice = NetChoice | Backbone | Encoder
"""A network by its name."""


def pretrained_for(side: int) -> tuple[Backbone | None, str]:
    """Return the pretrained network for images of that side, if one suits them and is installed, and what to say."""
    if side <= _LARGEST_SMALL:
        return None, ""
    if default_is_installed():
        return Backbone(), ""
    return None, (
        "A small network learns from the start. For photographs a pretrained one is far better: pip install "
        "'lasem[pretrained]', and begin a new model."
    )


def _groups(text: str) -> Literal["stages", "blocks"] | tuple[int, ...]:
    if text in ("stages", "blocks"):
        return text  # type: ignore[return-value]
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"net.groups must be stages, blocks, or numbers of blocks such as 4,4,4; got '{text}'."
        ) from error


def _option(text: str) -> tuple[str, Any]:
    """Read ``name=value``: a number, true, false, none, or a text."""
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise ConfigError(f"net.options must be NAME=VALUE, such as drop_path_rate=0; got '{text}'.")
    known: Mapping[str, Any] = {"true": True, "false": False, "none": None}
    if value.lower() in known:
        return name, known[value.lower()]
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value
