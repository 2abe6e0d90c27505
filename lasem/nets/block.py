"""Networks in general: blocks, which a task transfers or learns for itself, and a head that a task always owns.

They hold no weights; these are passed to them.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lasem.data import Vocabulary
from lasem.data.decode import Interpolation, Resize
from lasem.errors import ConfigError
from lasem.settings import Range, Settings, to_plain

InitialWeights = Literal["he", "paper"]
"""``he``: normal, variance 2 / fan-in, biases 0. ``paper``: normal, deviation .05, cut at twice that, biases .2."""

_PAPER_DEVIATION = 0.05
_PAPER_BIAS = 0.2

PoolBorder = Literal["end", "both"]
"""Where pooling adds to a side that its window does not divide: at the end, or at both, the odd pixel at the end."""

Weights = Mapping[str, Tensor]
"""A block's weights by name."""

Value = Any
"""The output of one block and input of the next: a tensor of shape (batch, ...), or a tuple of such tensors where
something passes by the next block, as a skip connection does."""

Size = Annotated[int, Range(least=1)]
_EARLIER = {"pool_border": "end", "form": "padded"}
"""Settings that descriptions of earlier versions lack, and what all networks had then: it is left out still."""


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with ``prefix`` and a dot, by the rest of their names."""
    return {name.removeprefix(prefix + "."): t for name, t in tensors.items() if name.startswith(prefix + ".")}


class AbstractBlock(ABC):
    """One transferable layer, or several that always go together, as a pure function of its weights."""

    name: str = ""
    """What a person calls it; empty: its number among the network's blocks."""

    @property
    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every weight by name; kernels are ``(out, in, ...)``, everything else has one dimension."""

    @property
    def kernels(self) -> tuple[str, ...]:
        """The names of the weights that are kernels, which a mechanism may factorise."""
        return tuple(name for name, shape in self.shapes.items() if len(shape) > 1)

    @property
    def statistics(self) -> dict[str, tuple[int, ...]]:
        """Shape of every running statistic by name; they always belong to a task and are not trained.

        Names differ from the weights'. A block that has any evaluates with them, and measures them in training.
        """
        return {}

    def initial_statistics(self) -> dict[str, Tensor]:
        """Return statistics before anything was measured, on the CPU, shaped as ``statistics`` says."""
        return {}

    pretrained: bool = False
    """Whether ``initial`` gives weights that were learned elsewhere, the same ones every time. A pretrained block takes
    weights and statistics that are not passed to it from these."""

    def held(self, like: Tensor) -> Weights:
        """Return a pretrained block's own weights, on the device and in the precision of a tensor; else none."""
        return {}

    def fresh_share(self, keep: float) -> float:
        """Return the share of fresh weights w' in weights w of which a share is kept (``specific_shrink``).

        Fresh weights are drawn at random, and s w + sqrt(1 - s^2) w' has the deviation of both. Pretrained ones are
        not: w came from them, so that it goes back towards them on a straight line, s w + (1 - s) w'.
        """
        return 1 - keep if self.pretrained else math.sqrt(1 - keep**2)

    @abstractmethod
    def initial(self, generator: torch.Generator, rule: InitialWeights) -> dict[str, Tensor]:
        """Draw fresh weights on the CPU, shaped as ``shapes`` says."""

    @abstractmethod
    def preactivate(self, weights: Weights, x: Value) -> Tensor:
        """Run the block on ``x`` of shape ``(batch, ...)`` up to its last activation, without it."""

    def activate(self, weights: Weights, x: Value) -> Value:
        """Run the block on ``x`` of shape ``(batch, ...)`` up to and with its last activation, a ReLU."""
        return F.relu(self.preactivate(weights, x), inplace=True)

    def reduce(self, x: Value) -> Value:
        """Apply the part after the activation, which has no weights: pooling, if there is any."""
        return x

    def apply(self, weights: Weights, x: Value) -> Value:
        """Run the block on ``x`` of shape ``(batch, ...)``, every entry of the batch by itself.

        ``weights`` are shaped as ``shapes`` says, with the statistics, if the block has any.
        """
        return self.reduce(self.activate(weights, x))

    def measure(self, weights: Weights, x: Value) -> tuple[Value, dict[str, Tensor]]:
        """Run the block on one mini-batch of training, normalised by the mini-batch itself where it has statistics.

        ``weights`` are as in ``apply`` and only read. Returned are the output and the statistics after the mini-batch.
        """
        return self.apply(weights, x), {}

    @property
    def num_parameters(self) -> int:
        """Numbers in the block's plain weights."""
        return sum(torch.Size(shape).numel() for shape in self.shapes.values())


class AbstractWholeBlock(AbstractBlock):
    """A block that is run as a whole, because the place of its last activation is unknown."""

    @abstractmethod
    def apply(self, weights: Weights, x: Value) -> Value: ...

    def preactivate(self, weights: Weights, x: Value) -> Tensor:
        out: Tensor = self.apply(weights, x)
        return out

    def activate(self, weights: Weights, x: Value) -> Value:
        return self.apply(weights, x)


class _PlainBlock(AbstractBlock):
    """A block of one ``weight`` and one ``bias``."""

    def initial(self, generator: torch.Generator, rule: InitialWeights) -> dict[str, Tensor]:
        weight, (size,) = self.shapes["weight"], self.shapes["bias"]
        return {"weight": initial_weight(weight, generator, rule), "bias": initial_bias(size, rule)}


@final
@dataclass(frozen=True)
class ConvBlock(_PlainBlock):
    """Convolution (SAME), ReLU, and max-pooling whose window is its stride."""

    in_channels: int
    out_channels: int
    kernel: int
    stride: int = 1
    pool: int = 1
    pool_border: PoolBorder = "end"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {
            "weight": (self.out_channels, self.in_channels, self.kernel, self.kernel),
            "bias": (self.out_channels,),
        }

    def preactivate(self, weights: Weights, x: Tensor) -> Tensor:
        """Turn (batch, in, height, width) into (batch, out, height', width'), each side divided by the stride, up.

        The kernel may have any number of input channels, and there may be no ``bias``.
        """
        weight, bias = weights["weight"], weights.get("bias")
        if self.stride == 1 and self.kernel % 2 == 1:
            return F.conv2d(x, weight, bias, padding=self.kernel // 2)
        return F.conv2d(F.pad(x, self.same_padding(*x.shape[-2:])), weight, bias, stride=self.stride)

    def reduce(self, x: Tensor) -> Tensor:
        if self.pool == 1:
            return x
        padding = self.pool_padding(*x.shape[-2:])
        if any(padding):
            x = F.pad(x, padding, value=-math.inf)
        # ceil_mode keeps the incomplete window at the border, so that no input is too small to be pooled
        return F.max_pool2d(x, self.pool, ceil_mode=True)

    def output_size(self, size: int) -> int:
        """Return the side of the output for a side of the input."""
        return math.ceil(math.ceil(size / self.stride) / self.pool)

    def same_padding(self, height: int, width: int) -> list[int]:
        """Count zeros at left, right, top, bottom for an output of ``ceil(size / stride)``, the odd one at the end."""
        return _same_padding(height, width, self.kernel, self.stride)

    def pool_padding(self, height: int, width: int) -> list[int]:
        """Count what pooling adds at left, right, top and bottom, besides what it adds at the end."""
        return _same_padding(height, width, self.pool, self.pool) if self.pool_border == "both" else [0] * 4


def _same_padding(height: int, width: int, window: int, stride: int) -> list[int]:
    padding = []
    for size in (width, height):
        total = max((-(-size // stride) - 1) * stride + window - size, 0)
        padding += [total // 2, total - total // 2]
    return padding


@final
@dataclass(frozen=True)
class LinearBlock(_PlainBlock):
    """Fully-connected layer and ReLU on flattened inputs; its weights may come without ``bias``."""

    in_features: int
    out_features: int

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"weight": (self.out_features, self.in_features), "bias": (self.out_features,)}

    def preactivate(self, weights: Weights, x: Tensor) -> Tensor:
        return F.linear(x.flatten(1), weights["weight"], weights.get("bias"))


def rounds(device: torch.device) -> bool:
    """Return whether torch now computes in fewer bits on a device by itself (``torch.autocast``)."""
    return bool(torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type))


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Keep the precision of its operands for all arithmetic within, also inside of ``torch.autocast``."""
    return torch.autocast(device.type, enabled=False) if rounds(device) else nullcontext()


def as_float32(x: Tensor) -> Tensor:
    """Return the same numbers in float32 if they are bfloat16; else the tensor itself."""
    return x.float() if x.dtype == torch.bfloat16 else x


def initial_weight(shape: tuple[int, ...], generator: torch.Generator, rule: InitialWeights) -> Tensor:
    """Draw a weight of shape ``(out, in, ...)``, on the CPU."""
    if rule == "paper":
        bound = 2 * _PAPER_DEVIATION
        return torch.nn.init.trunc_normal_(
            torch.empty(shape), std=_PAPER_DEVIATION, a=-bound, b=bound, generator=generator
        )
    return torch.randn(shape, generator=generator) * math.sqrt(2 / math.prod(shape[1:]))


def initial_bias(size: int, rule: InitialWeights) -> Tensor:
    """Return a bias of shape ``(size,)``."""
    return torch.full((size,), _PAPER_BIAS if rule == "paper" else 0.0)


def glorot_uniform(shape: tuple[int, ...], fan_in: int, fan_out: int, generator: torch.Generator) -> Tensor:
    """Draw uniform numbers with variance 2 / (fan_in + fan_out), as the paper starts the factors of TF and DF-CNN."""
    bound = math.sqrt(6 / (fan_in + fan_out))
    return (torch.rand(shape, generator=generator) * 2 - 1) * bound


def start_generator(seed: int, task_index: int, layer: int, part: int = 0) -> torch.Generator:
    """Make the source for the start of one layer of one task, so that methods are compared on equal starts.

    The head is the layer after the last. Part 0 is the start of a plain network, others are a method's further needs.
    """
    return generator_of((seed, task_index, layer, part))


def generator_of(seed: Sequence[int], *key: int) -> torch.Generator:
    """Make a source of random numbers on the CPU, of which there is another one for every key below a seed."""
    state = np.random.SeedSequence(seed, spawn_key=key).generate_state(1)
    return torch.Generator().manual_seed(int(state[0]))


@final
@dataclass(frozen=True)
class Head:
    """Flatten, dropout once, hidden layers with ReLU, one linear layer to the classes."""

    in_features: int
    hidden: tuple[int, ...]
    dropout: float
    """Share of the flattened features that training sets to zero."""

    def shapes(self, num_classes: int) -> dict[str, tuple[int, ...]]:
        """Return ``weight.i`` of shape (out, in) and ``bias.i`` of shape (out,) for each linear layer."""
        shapes: dict[str, tuple[int, ...]] = {}
        for i, (fan_in, fan_out) in enumerate(pairwise((self.in_features, *self.hidden, num_classes))):
            shapes |= {f"weight.{i}": (fan_out, fan_in), f"bias.{i}": (fan_out,)}
        return shapes

    def initial(self, num_classes: int, generator: torch.Generator, rule: InitialWeights) -> dict[str, Tensor]:
        """Draw fresh weights on the CPU, shaped as ``shapes`` says."""
        return {
            name: initial_weight(shape, generator, rule) if len(shape) == 2 else initial_bias(shape[0], rule)
            for name, shape in self.shapes(num_classes).items()
        }

    def dropped(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Set a share of features to zero, and scale the others up as much (inverted dropout)."""
        if self.dropout == 0:
            return x
        kept = torch.rand(x.shape, generator=generator, device=x.device) >= self.dropout  # half the time of bernoulli_
        return x * (kept.to(x.dtype) / (1 - self.dropout))

    def apply(self, weights: Weights, x: Tensor, dropout_from: torch.Generator | None = None) -> Tensor:
        """Compute logits of shape (batch, num_classes) for features of shape (batch, ...).

        ``dropout_from`` is the source of the dropout mask, on the device of ``x``; None switches dropout off.
        """
        x = x.flatten(1)
        if dropout_from is not None:
            x = self.dropped(x, dropout_from)
        last = len(self.hidden)
        for i in range(last):
            x = F.relu(F.linear(x, weights[f"weight.{i}"], weights[f"bias.{i}"]))
        return F.linear(x, weights[f"weight.{last}"], weights[f"bias.{last}"])

    def apply_each(self, heads: Sequence[Weights], x: Tensor, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        """Compute the logits of several heads, each for its rows of the features ``x``.

        Heads of one layer that answer for all rows are one matrix.
        """
        x = x.flatten(1)
        if self.hidden or len(heads) == 1 or any(len(at) != len(x) for at in rows):
            return [self.apply(head, x[list(at)]) for head, at in zip(heads, rows, strict=True)]
        weight, bias = (torch.cat([head[name] for head in heads]) for name in ("weight.0", "bias.0"))
        each = torch.split(F.linear(x, weight, bias), [len(head["bias.0"]) for head in heads], dim=1)
        return [logits[list(at)] for logits, at in zip(each, rows, strict=True)]


@final
@dataclass(frozen=True, kw_only=True)
class Preprocessing(Settings):
    """How a pretrained network expects its images."""

    side: Size
    """Height and width of the images that it was trained with."""
    mean: tuple[float, ...]
    """Of each channel, of pixels from 0 to 1; subtracted."""
    std: tuple[Annotated[float, Range(above=0)], ...]
    """Of each channel; divides."""
    crop: Annotated[float, Range(above=0, most=1)] | None = None
    """As in ``Resize``."""
    interpolation: Interpolation = "bilinear"
    """As in ``Resize``."""

    def resize(self, side: int | None = None) -> Resize:
        """Return how image files become squares of that side, or of the network's own."""
        return Resize(side=side or self.side, crop=self.crop, interpolation=self.interpolation)


class AbstractNet(ABC):
    """A network without weights: they are passed to its blocks and its head."""

    image_shape: tuple[int, int, int]
    """Channels, height and width of the images."""
    initial: InitialWeights
    """How plain weights start."""
    vocabulary: Vocabulary | None = None
    """Token ids that the network reads, if its images are texts (``lasem.data.as_tokens``); None: any numbers."""
    remark: str = ""
    """What a person should know of the network before it learns; empty for nothing."""

    preprocessing: Preprocessing | None = None
    """How images are read and standardised for a pretrained network; None: as the data's settings say."""
    origin: str = ""
    """What a pretrained network is and where its weights are from, in words."""

    @property
    @abstractmethod
    def blocks(self) -> tuple[AbstractBlock, ...]:
        """The layers that may be transferred, input side first."""

    @property
    @abstractmethod
    def head(self) -> Head:
        """The stack that every task owns."""

    @property
    def depth(self) -> int:
        """Number of layers that may be transferred."""
        return len(self.blocks)

    @property
    def pretrained(self) -> bool:
        """Whether all blocks start from weights that were learned elsewhere."""
        return all(block.pretrained for block in self.blocks)

    @property
    def block_names(self) -> Sequence[str]:
        """What each block is called; empty texts where they have numbers only."""
        return [block.name for block in self.blocks]

    @property
    def block_shapes(self) -> Sequence[Mapping[str, tuple[int, ...]]]:
        """The shapes of each block's weights by name."""
        return [block.shapes for block in self.blocks]

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The pretrained module's tensors, which a saved model holds once, and from which it is built again."""
        return {}

    def resize(self) -> Resize:
        """Return how image files become its images."""
        side = self.image_shape[1]
        return Resize(side=side) if self.preprocessing is None else self.preprocessing.resize(side)

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Describe the network for a saved model, in values that JSON has; ``lasem.nets.rebuild`` reads it."""


@dataclass(frozen=True, kw_only=True)
class SizedNet(AbstractNet, Settings):
    """A network as settings, which a saved model holds to build it again; ConfigError if sizes do not fit together."""

    image_shape: tuple[Size, Size, Size]
    """Channels, height and width of the images."""
    hidden: tuple[Size, ...]
    """Hidden layers of the head, which belong to the task."""
    dropout: Annotated[float, Range(least=0, below=1)] = 0.5
    """Share of the features that training drops, once, where the head begins."""
    initial: InitialWeights = "he"
    """How plain weights start."""
    pool_border: PoolBorder = "end"
    """Where max-pooling fills up a side that its window does not divide: at the ``end``; or at ``both``, the odd pixel
    at the end, as in the paper. With windows of 1 and 2 it is the same."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, list | tuple):
                object.__setattr__(self, name, tuple(value))
        check_image_shape(f"{type(self).__name__}.image_shape", self.image_shape)
        super().__post_init__()

    def description(self) -> dict[str, Any]:
        return {name: value for name, value in to_plain(self).items() if value != _EARLIER.get(name)}


def check_image_shape(setting: str, shape: tuple[int, ...]) -> None:
    """Raise ConfigError unless a shape has three sizes."""
    if len(shape) != 3:
        raise ConfigError(f"{setting} is (channels, height, width); got {tuple(shape)}.")
