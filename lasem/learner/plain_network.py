"""One task's network without lasem: a plain torch module, and the list of operations that it computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from lasem.data import standardise
from lasem.errors import ConfigError
from lasem.methods.method import AbstractMethod
from lasem.methods.model import Model
from lasem.nets import AbstractNet, ClosingBlock, ConvBlock, LinearBlock, OpeningBlock
from lasem.training import Named, part_of


class AbstractPlainNetwork(nn.Module):
    """From images to logits: (N, channels, height, width), float32 on the task's scale, to (N, num_classes).

    Holds its tensors as buffers, and standardises the images itself.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: AbstractNet, tensors: Mapping[str, Named], mean: Tensor, std: Tensor) -> None:
        """Take tensors over, on the CPU.

        Args:
            net: which layers there are.
            tensors: by group and flat name.
            mean: per channel, subtracted from images.
            std: per channel, divides them.
        """
        super().__init__()
        self._net = net
        self._places = {
            group: {name: f"{group}.{name}".replace(".", "_") for name in named} for group, named in tensors.items()
        }
        for group, named in tensors.items():
            for name, value in named.items():
                self.register_buffer(self._places[group][name], value.detach().cpu().contiguous().clone())
        self.register_buffer("mean", mean.detach().cpu().clone())
        self.register_buffer("std", std.detach().cpu().clone())

    def group(self, group: str) -> dict[str, Tensor]:
        """Return one group's tensors by flat name."""
        return {name: getattr(self, place) for name, place in self._places[group].items()}

    def example(self) -> Tensor:
        """Return two images of the right shape."""
        return torch.zeros(2, *self._net.image_shape)


@final
class PlainNetwork(AbstractPlainNetwork):
    """A task's network with weights that are made once: no sharing mechanism and no method is left in it."""

    def __init__(self, net: AbstractNet, weights: Named, *, mean: Tensor, std: Tensor) -> None:
        """Take weights over; they are named as ``AbstractMethod.plain_weights`` says."""
        groups = [*(f"layer.{i}" for i in range(net.depth)), "head"]
        super().__init__(net, {group: part_of(weights, group) for group in groups}, mean, std)

    def forward(self, images: Tensor) -> Tensor:
        x = standardise(images, self.mean, self.std)
        for i, block in enumerate(self._net.blocks):
            x = block.apply(self.group(f"layer.{i}"), x)
        return self._net.head.apply(self.group("head"), x)

    def fits(self, net: AbstractNet) -> bool:
        """Return whether the weights have the shapes that the network's description says."""
        layers = zip(net.blocks, (self.group(f"layer.{i}") for i in range(net.depth)), strict=True)
        return all(tuple(own[name].shape) == shape for block, own in layers for name, shape in block.shapes.items())

    def named_weights(self) -> dict[str, Tensor]:
        """Return every weight under a name such as ``layer.0.weight`` or ``head.bias.1``, and ``mean`` and ``std``."""
        named = {f"{group}.{name}": value for group in self._places for name, value in self.group(group).items()}
        return {**named, "mean": self.mean, "std": self.std}


@final
class MethodNetwork(AbstractPlainNetwork):
    """A task's answer as its method computes it, for methods whose answer is no plain network."""

    def __init__(
        self, net: AbstractNet, method: AbstractMethod, model: Model, name: str, *, mean: Tensor, std: Tensor
    ) -> None:
        """Take over what the answer depends on (``AbstractMethod.answers_with``)."""
        needed = method.answers_with(model, name)
        self._method, self._name, self._owners = method, name, list(needed.own)
        own = {f"own.{number}": needed.own[owner] for number, owner in enumerate(self._owners)}
        super().__init__(net, {"shared": needed.shared, **own}, mean, std)

    def forward(self, images: Tensor) -> Tensor:
        own = {owner: self.group(f"own.{number}") for number, owner in enumerate(self._owners)}
        x = standardise(images, self.mean, self.std)
        return self._method.logits(self._net, Model(self.group("shared"), own), self._name, x)


Operation = dict[str, Any]

MEANINGS = {
    "standardise": "x of shape (N, channels, height, width): (x - mean) / std, one number of each for a channel",
    "conv2d": "cross-correlation with weight (out, in, height, width), then + bias; padding is the number of zeros put "
    "around x before it, [left, right, top, bottom]",
    "relu": "max(x, 0)",
    "max_pool2d": "the largest of each window, side and stride equal, no padding; at the right and the bottom, windows "
    "that x does not fill are kept (ceil_mode)",
    "keep": "remember x as it is, until add",
    "add": "x + what was kept, which first gets channels of zeros after its own",
    "flatten": "(N, channels, height, width) to (N, channels * height * width), the width running fastest",
    "linear": "x @ weight.T + bias, weight (out, in)",
}
"""What each operation does to the values ``x`` that the one before gave."""


def operations(net: AbstractNet) -> list[Operation]:
    """What a task's network computes from pixels to logits, in order.

    Weights have the names of ``PlainNetwork.named_weights``. Dropout is no part of it: only training drops.

    Raises:
        ConfigError: if the network has layers that are code, such as those cut from a module.
    """
    strange = next(
        (b for b in net.blocks if not isinstance(b, ConvBlock | LinearBlock | OpeningBlock | ClosingBlock)), None
    )
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
        conv = block.conv if isinstance(block, OpeningBlock | ClosingBlock) else block
        assert isinstance(conv, ConvBlock)
        if isinstance(block, OpeningBlock):
            found.append({"operation": "keep"})
            kept = conv.in_channels
        padding = conv.same_padding(height, width)
        found.append({"operation": "conv2d", **named, "stride": conv.stride, "padding": padding})
        if isinstance(block, ClosingBlock):
            found.append({"operation": "add", "channels_of_zeros": conv.out_channels - kept})
        found.append({"operation": "relu"})
        if conv.pool > 1:
            found.append({"operation": "max_pool2d", "window": conv.pool, "ceil_mode": True})
        height, width = conv.output_size(height), conv.output_size(width)
    found += [] if flat else [{"operation": "flatten"}]
    for i in range(len(net.head.hidden) + 1):
        found += [{"operation": "relu"}] if i else []
        found.append({"operation": "linear", "weight": f"head.weight.{i}", "bias": f"head.bias.{i}"})
    return found
