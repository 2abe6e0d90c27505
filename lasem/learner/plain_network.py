"""One task as a plain torch module: its weights are made once, and no sharing mechanism is left in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor, nn

from lasem.data import standardise
from lasem.nets import AbstractNet


@final
class PlainNetwork(nn.Module):
    """From images to logits: (N, channels, height, width), float32 pixels in [0, 1], to (N, num_classes)."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: AbstractNet,
        layers: Sequence[Mapping[str, Tensor]],
        head: Mapping[str, Tensor],
        *,
        mean: Tensor,
        std: Tensor,
    ) -> None:
        """Take the weights over, on the CPU.

        Args:
            net: which layers there are.
            layers: each layer's plain weights, and its statistics if it has any.
            head: the head's weights.
            mean: per channel, subtracted from images.
            std: per channel, divides them.
        """
        super().__init__()
        self._net = net
        self._names: list[tuple[str, dict[str, str]]] = []
        for prefix, weights in (*((f"layer.{i}", layer) for i, layer in enumerate(layers)), ("head", head)):
            places = {name: f"{prefix}.{name}".replace(".", "_") for name in weights}
            self._names.append((prefix, places))
            for name, place in places.items():
                self.register_buffer(place, weights[name].detach().cpu().contiguous().clone())
        self.register_buffer("mean", mean.detach().cpu().clone())
        self.register_buffer("std", std.detach().cpu().clone())

    def forward(self, images: Tensor) -> Tensor:
        """Logits; see the class."""
        x = standardise(images, self.mean, self.std)
        *layers, head = ({name: getattr(self, place) for name, place in names.items()} for _, names in self._names)
        for block, weights in zip(self._net.blocks, layers, strict=True):
            x = block.apply(weights, x)
        return self._net.head.apply(head, x)

    def named_weights(self) -> dict[str, Tensor]:
        """Every weight under a name such as ``layer.0.weight`` or ``head.bias.1``, and ``mean`` and ``std``."""
        found = {
            f"{prefix}.{name}": getattr(self, place) for prefix, names in self._names for name, place in names.items()
        }
        return {**found, "mean": self.mean, "std": self.std}

    def example(self) -> Tensor:
        """Two images of the right shape."""
        return torch.zeros(2, *self._net.image_shape)
