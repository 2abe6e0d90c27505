"""Plain convolutional networks, the paper's among them (Lee, Behpour, Eaton, ICML 2021), and all networks by name.

A choice is a network as settings: what ``--net NAME`` means for images of a size.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, Literal, final

from torch import Tensor

from lasem.errors import ConfigError, StorageError
from lasem.nets.backbone import DEFAULT, default_is_installed, from_timm, stored_timm, timm_preprocessing
from lasem.nets.block import (
    AbstractBlock,
    AbstractNet,
    ConvBlock,
    Head,
    InitialWeights,
    LinearBlock,
    PoolBorder,
    Preprocessing,
    Size,
    SizedNet,
)
from lasem.nets.convnets import ResNet, SmallNet, padded_resnet, resnet, small
from lasem.nets.cut_net import Statistics, StoredNet, Trainable, check_described
from lasem.nets.encoders import Pooling
from lasem.nets.pretrained import from_transformers, stored_transformers
from lasem.settings import Range, Settings, check_choice, from_plain

ImageShape = tuple[int, int, int]

_STORED = {"timm": stored_timm, "transformers": stored_transformers}
AUTO = "auto"
"""The network that suits the images' size."""
_LEAST, _ENLARGED = 64, 96
"""Side of images below which a pretrained network enlarges them, and to which."""
_LARGEST_SMALL = 40
"""Side of images up to which a small network learns from the start."""


@final
@dataclass(frozen=True, kw_only=True)
class Net(SizedNet):
    """A plain convolutional network."""

    channels: tuple[Size, ...]
    """Output channels of each convolution, input side first."""
    kernels: tuple[Size, ...]
    """Side of each convolution's kernel."""
    pools: tuple[Size, ...]
    """Window and stride of the max-pooling after each convolution; 1 for none."""
    strides: tuple[Size, ...] = ()
    """Stride of each convolution; empty for 1 everywhere."""
    linear: tuple[Size, ...] = ()
    """Fully-connected layers that may be transferred, between the convolutions and the head."""
    hidden: tuple[Size, ...] = (64,)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "strides", self.strides or (1,) * len(self.channels))
        if not len(self.channels) == len(self.kernels) == len(self.pools) == len(self.strides):
            raise ConfigError(
                f"Net needs one kernel, one pool and one stride for each of its {len(self.channels)} convolutions; "
                f"got {len(self.kernels)} kernels, {len(self.pools)} pools, {len(self.strides)} strides."
            )
        if not self.channels and not self.linear:
            raise ConfigError("Net needs at least one layer that can be transferred; got none.")

    @cached_property  # methods ask in every step
    def blocks(self) -> tuple[AbstractBlock, ...]:
        sizes = (self._num_flattened(), *self.linear)
        return (*self._convolutions(), *(LinearBlock(*pair) for pair in pairwise(sizes)))

    @cached_property
    def head(self) -> Head:
        return Head(self.linear[-1] if self.linear else self._num_flattened(), self.hidden, self.dropout)

    def _convolutions(self) -> list[ConvBlock]:
        inputs = (self.image_shape[0], *self.channels)
        layers = zip(inputs, self.channels, self.kernels, self.strides, self.pools, strict=False)
        return [ConvBlock(*layer, self.pool_border) for layer in layers]

    def _num_flattened(self) -> int:
        channels, height, width = self.image_shape
        for block in self._convolutions():
            channels, height, width = block.out_channels, block.output_size(height), block.output_size(width)
        return channels * height * width


def cifar(image_shape: ImageShape = (3, 32, 32), *, depth: Literal[4, 6, 8] = 4) -> Net:
    """Build the CIFAR-100 network with 4, 6 or 8 convolutions of 3x3; each second one is pooled."""
    check_choice("depth", str(depth), ("4", "6", "8"))
    return Net(
        image_shape=image_shape,
        channels=(32, 32, 64, 64, 128, 128, 128, 128)[:depth],
        kernels=(3,) * depth,
        pools=(1, 2) * (depth // 2),
    )


def office_home(image_shape: ImageShape = (3, 128, 128)) -> Net:
    """Build the Office-Home network: 4 convolutions of 11x11, 5x5, 3x3 and 3x3."""
    return Net(
        image_shape=image_shape,
        channels=(64, 256, 256, 256),
        kernels=(11, 5, 3, 3),
        pools=(3, 3, 2, 2),
        hidden=(256, 64),
    )


def stl10(image_shape: ImageShape = (3, 96, 96)) -> Net:
    """Build the STL-10 network: 6 convolutions of 3x3; each second one is pooled by 3."""
    return Net(
        image_shape=image_shape,
        channels=(32, 32, 64, 64, 128, 128),
        kernels=(3,) * 6,
        pools=(1, 3) * 3,
        hidden=(128, 16),
    )


def digits(image_shape: ImageShape = (1, 8, 8)) -> Net:
    """Build a small network for the embedded digits: 4 convolutions of 3x3; each second one is pooled."""
    return Net(image_shape=image_shape, channels=(16, 16, 32, 32), kernels=(3,) * 4, pools=(1, 2, 1, 2), hidden=(32,))


NETS: dict[str, Callable[[ImageShape], AbstractNet]] = {
    "cifar": cifar,
    "cifar-6": lambda shape: cifar(shape, depth=6),
    "cifar-8": lambda shape: cifar(shape, depth=8),
    "office-home": office_home,
    "stl-10": stl10,
    "digits": digits,
    "small": small,
    "resnet": resnet,
    "resnet-padded": padded_resnet,
}
"""The networks that a name on the command line can mean."""

_SIZED: dict[str, type[SizedNet]] = {"plain": Net, "resnet": ResNet, "small": SmallNet}
"""Networks that are their settings, by kind of description."""


def for_images(image_shape: ImageShape) -> SizedNet:
    """Build a network for images of a size: ``small`` for colour images of 17 to 112 pixels, else the paper's one."""
    photographs = image_shape[0] == 3 and 16 < max(image_shape[1:]) <= 112
    return small(image_shape) if photographs else of_paper(image_shape)


def of_paper(image_shape: ImageShape) -> Net:
    """Build the network that the paper's choices suggest: digits to 16 pixels, CIFAR to 64, STL-10 to 112."""
    side = max(image_shape[1:])
    return (digits if side <= 16 else cifar if side <= 64 else stl10 if side <= 112 else office_home)(image_shape)


def rebuild(
    description: Mapping[str, Any],
    given: AbstractNet | None = None,
    tensors: Callable[[], Mapping[str, Tensor]] = dict,
) -> AbstractNet:
    """Build the network of a description (``AbstractNet.description``); that of a plain one has no ``kind``.

    A module that was cut must be ``given``, because code is never saved; ``tensors`` reads those of a pretrained
    module. StorageError if ``given`` is another network, or is needed; ConfigError if the description is damaged.
    """
    kind = description.get("kind", "plain")
    if given is None and kind in _SIZED:
        settings = {name: value for name, value in description.items() if name != "kind"}
        return from_plain(_SIZED[kind], settings, "net")
    if given is None and kind == "cut":
        names = ", ".join(str(block["name"]) for block in description["blocks"])
        raise StorageError(
            f"The model's network was cut from a module (blocks: {names}), whose code is not saved. Pass "
            f"net=lasem.nets.cut(module, ...) as it was then, in Python: lasem.GrowingModel(folder, net=...) or "
            f"lasem.Learner.load(folder, net=...); the command line cannot know the module."
        )
    if given is None and kind not in _STORED:
        known = ", ".join((*_SIZED, "cut", *_STORED))
        raise ConfigError(f"Expected a network of one of the kinds {known}; got '{kind}'.")
    if given is None:
        return StoredNet(description, lambda described: _STORED[kind](described, tensors()))
    check_described(description, given)
    return given


@final
@dataclass(frozen=True, kw_only=True)
class NetChoice(Settings):
    """One of lasem's networks, fitted to the images; ConfigError if there is no network of that name."""

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
    """A model of another library, cut into stages that may be transferred; ConfigError if none has that name."""

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
    """An encoder of Hugging Face transformers for texts or images, cut into groups of layers for transfer."""

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
