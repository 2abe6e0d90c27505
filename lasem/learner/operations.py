"""A network as a list of plain operations, which whoever has its weights and no lasem can write down in any library."""

from __future__ import annotations

from typing import Any

from lasem.errors import ConfigError
from lasem.nets import AbstractNet, ClosingBlock, ConvBlock, LinearBlock, OpeningBlock

Operation = dict[str, Any]

MEANINGS = {
    "standardise": "x of shape (N, channels, height, width): (x - mean) / std, one number of each for a channel",
    "conv2d": "cross-correlation with weight (out, in, height, width), then + bias; padding is the number of zeros put "
    "around x before it, [left, right, top, bottom]",
    "relu": "max(x, 0)",
    "max_pool2d": "the largest of each window, side and stride equal, no padding; at the right and the bottom, windows "
    "that x does not fill are kept (ceil_mode)",
    "keep": "remember x beside itself, until add",
    "add": "x + what was kept, which first gets channels of zeros behind its own",
    "flatten": "(N, channels, height, width) to (N, channels * height * width), the width running fastest",
    "linear": "x @ weight.T + bias, weight (out, in)",
}
"""What each operation does to the values ``x`` that the one before gave."""


def operations(net: AbstractNet) -> list[Operation]:
    """What a task's network computes from pixels in [0, 1] to logits, in order.

    Weights have the names of ``PlainNetwork.named_weights``. Dropout is no part of it: only training drops.

    Raises:
        ConfigError: if the network has layers that are code, such as those cut from a module.
    """
    strange = next(
        (b for b in net.blocks if not isinstance(b, ConvBlock | LinearBlock | OpeningBlock | ClosingBlock)), None
    )
    if strange is not None:
        raise ConfigError(
            f"Expected layers that can be written down beside plain weights; got {type(strange).__name__}, which "
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
