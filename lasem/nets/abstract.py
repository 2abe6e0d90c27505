"""What every network is: blocks that may be transferred, and a head that is always a task's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from lasem.data import Vocabulary
from lasem.nets.block import AbstractBlock
from lasem.nets.head import Head
from lasem.nets.initial import InitialWeights


class AbstractNet(ABC):
    """A network without weights: they are given to its blocks and its head."""

    image_shape: tuple[int, int, int]
    """Channels, height and width of the images."""
    initial: InitialWeights
    """How plain weights start."""
    vocabulary: Vocabulary | None = None
    """What token ids it reads, if its images are texts (``lasem.data.as_tokens``); None: it takes any numbers."""

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

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """What a saved model says of the network, as JSON has it; ``lasem.nets.rebuild`` reads it."""
