"""One task's network without lasem: a plain torch module, and the list of operations that it computes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

from lasem.data import standardise
from lasem.errors import ConfigError
from lasem.learner.learner import Learner
from lasem.learner.model_folder import TaskInfo
from lasem.methods.model import Model, prefixed
from lasem.methods.plain import run
from lasem.nets import AbstractNet, ClosingBlock, ConvBlock, LinearBlock, NormalisedBlock, OpeningBlock
from lasem.training import Named, part_of

_OF_TASK = ("mean", "std", "temperature")


@final
class PlainNetwork(nn.Module):
    """From images to logits: (N, channels, height, width), float32 on the task's scale, to (N, num_classes).

    Holds its tensors as buffers, and standardises the images itself; logits are divided by the task's temperature.
    """

    mean: Tensor
    std: Tensor
    temperature: Tensor

    def __init__(self, answer: Callable[[Named, Tensor], Tensor], tensors: Named, info: TaskInfo) -> None:
        """Take tensors over, on the CPU; ``answer`` computes logits from them and standardised images."""
        super().__init__()
        self._answer, self._names = answer, (*tensors, *_OF_TASK)
        for name, value in {**tensors, **{key: torch.tensor(getattr(info, key)) for key in _OF_TASK}}.items():
            self.register_buffer(_place(name), value.detach().cpu().contiguous().clone())

    def forward(self, images: Tensor) -> Tensor:
        logits = self._answer(self.named_weights(), standardise(images, self.mean, self.std))
        return logits / self.temperature

    def named_weights(self) -> dict[str, Tensor]:
        """Return every tensor under its flat name: ``layer.0.weight``, ..., ``mean``, ``std`` and ``temperature``."""
        return {name: getattr(self, _place(name)) for name in self._names}


def _place(name: str) -> str:
    return name.replace(".", "_")


def plain_network(learner: Learner, name: str) -> PlainNetwork:
    """Return a learned task's network as a plain module, in evaluation, on the CPU: what ``export`` writes.

    Its weights are made once: no sharing mechanism is left in it, and no method unless the answer is no plain network.

    Raises:
        TaskError: if the task was not learned.
    """
    info, net, method = learner.info(name), learner.net, learner.method
    tensors = method.plain_weights(net, learner.model, name)
    if tensors is not None:
        return PlainNetwork(partial(run, net), tensors, info).eval()
    needed = method.answers_with(learner.model, name)
    groups = {f"own.{number}": owner for number, owner in enumerate(needed.own)}
    tensors = prefixed("shared", needed.shared)
    for group, owner in groups.items():
        tensors |= prefixed(group, needed.own[owner])

    def answer(tensors: Named, x: Tensor) -> Tensor:
        own = {owner: part_of(tensors, group) for group, owner in groups.items()}
        return method.logits(net, Model(part_of(tensors, "shared"), own), name, x)

    return PlainNetwork(answer, tensors, info).eval()


Operation = dict[str, Any]

MEANINGS = {
    "standardise": "x of shape (N, channels, height, width): (x - mean) / std, one number of each for a channel",
    "conv2d": "cross-correlation with weight (out, in, height, width), then + bias unless it is null; padding is the "
    "number of zeros put around x before it, [left, right, top, bottom]",
    "normalise": "(x - mean) / sqrt(variance + 1e-5) + bias, one number of each for a channel",
    "relu": "max(x, 0)",
    "max_pool2d": "the largest of each window, side and stride equal; at the right and the bottom, windows that x does "
    "not fill are kept (ceil_mode); padding is what is put around x before it and is never the largest, [left, right, "
    "top, bottom]",
    "average": "the mean over height and width, which become 1",
    "keep": "remember x as it is, until add",
    "add": "x + what was kept, which first gets channels of zeros after its own",
    "flatten": "(N, channels, height, width) to (N, channels * height * width), the width running fastest",
    "linear": "x @ weight.T + bias, weight (out, in)",
    "divide": "x / by, one number",
}
"""What each operation does to the values ``x`` that the one before gave."""


def operations(net: AbstractNet) -> list[Operation]:
    """What a task's network computes from pixels to logits, in order.

    Weights have the names of ``PlainNetwork.named_weights``. Dropout is no part of it: only training drops.

    Raises:
        ConfigError: if the network has layers that are code, such as those cut from a module.
    """
    known = ConvBlock | LinearBlock | OpeningBlock | ClosingBlock | NormalisedBlock
    strange = next((block for block in net.blocks if not isinstance(block, known)), None)
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
        conv = block.conv if isinstance(block, OpeningBlock | ClosingBlock | NormalisedBlock) else block
        assert isinstance(conv, ConvBlock)
        if isinstance(block, OpeningBlock):
            found.append({"operation": "keep"})
            kept = conv.in_channels
        padding = conv.same_padding(height, width)
        found.append({"operation": "conv2d", **named, "stride": conv.stride, "padding": padding})
        if isinstance(block, NormalisedBlock):
            measured = {name: f"layer.{i}.{name}" for name in block.statistics}
            found[-1] |= {"bias": None}
            found.append({"operation": "normalise", **measured, "bias": named["bias"]})
        after: list[Operation] = [{"operation": "relu"}]
        if isinstance(block, ClosingBlock):
            after.insert(block.added_last, {"operation": "add", "channels_of_zeros": conv.out_channels - kept})
        found += after
        if conv.pool > 1:
            pooled = conv.pool_padding(-(-height // conv.stride), -(-width // conv.stride))
            found.append({"operation": "max_pool2d", "window": conv.pool, "padding": pooled, "ceil_mode": True})
        if isinstance(block, NormalisedBlock) and block.averaged:
            found.append({"operation": "average"})
        height, width = conv.output_size(height), conv.output_size(width)
    found += [] if flat else [{"operation": "flatten"}]
    for i in range(len(net.head.hidden) + 1):
        found += [{"operation": "relu"}] if i else []
        found.append({"operation": "linear", "weight": f"head.weight.{i}", "bias": f"head.bias.{i}"})
    return [*found, {"operation": "divide", "by": "temperature"}]
