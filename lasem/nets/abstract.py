"""Networks in general: blocks that may be transferred, and a head that a task always owns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, final

import torch
import torch.nn.functional as F
from torch import Tensor

from lasem.data import Vocabulary
from lasem.data.decode import Interpolation, Resize
from lasem.errors import ConfigError
from lasem.nets.block import AbstractBlock, InitialWeights, PoolBorder, Weights, initial_bias, initial_weight
from lasem.settings import Range, Settings, to_plain

Size = Annotated[int, Range(least=1)]

_EARLIER = {"pool_border": "end", "form": "padded"}
"""Settings that descriptions of earlier versions lack, and what all networks had then: it is left out still."""


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
    """A network as settings: a saved model holds them and builds the network again.

    Raises:
        ConfigError: if the sizes do not fit each other or are out of range.
    """

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
