"""Which network a run learns with, before the size of the images is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

from lasem.errors import check_choice, check_range
from lasem.nets import NETS, AbstractNet, ImageShape, InitialWeights, for_images

AUTO = "auto"
"""The network that the paper's choices suggest for the images' size."""


@final
@dataclass(frozen=True, kw_only=True)
class NetChoice:
    """One of the paper's networks, fitted to the stream's images.

    Raises:
        ConfigError: if there is no network of that name, or a setting is out of range.
    """

    name: str = AUTO
    """auto, or one of ``lasem.nets.NETS``."""
    hidden: tuple[int, ...] | None = None
    """Hidden layers of the head, which belong to the task, such as 256,64; none: the network's own."""
    dropout: float | None = None
    """Share of the features that training drops, once, where the head begins; none: the network's own."""
    initial: InitialWeights | None = None
    """How plain weights start: ``he`` (normal, by the layer's inputs) or ``paper``; none: the network's own."""

    def __post_init__(self) -> None:
        check_choice("NetChoice.name", self.name, (AUTO, *NETS))
        for size in self.hidden or ():
            check_range("NetChoice.hidden", size, least=1)
        if self.dropout is not None:
            check_range("NetChoice.dropout", self.dropout, least=0, below=1)
        if self.initial is not None:
            check_choice("NetChoice.initial", self.initial, ("he", "paper"))

    def build(self, image_shape: ImageShape) -> AbstractNet:
        """Build the network for images of (channels, height, width)."""
        net: Any = (for_images if self.name == AUTO else NETS[self.name])(image_shape)
        given: dict[str, Any] = {"hidden": self.hidden, "dropout": self.dropout, "initial": self.initial}
        built: AbstractNet = replace(net, **{field: value for field, value in given.items() if value is not None})
        return built
