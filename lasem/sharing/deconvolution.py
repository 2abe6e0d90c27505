"""Deconvolutional factorisation (DF-CNN): a small knowledge base that tasks share, and maps from it to kernels.

.. [Lee2019] S. Lee, J. Stokes, E. Eaton. Learning Shared Knowledge for Deep Lifelong Learning using Deconvolutional
   Networks. IJCAI 2019.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor

from lasem.errors import ConfigError
from lasem.nets import AbstractBlock, Weights
from lasem.nets.block import glorot_uniform
from lasem.settings import Range
from lasem.sharing.abstract import AbstractKernelSharing, Kernel, kernels_of

_IN_BOTH = {
    (3, 32, 32): (24, 48),
    (3, 32, 64): (32, 64),
    (3, 64, 128): (64, 128),
    (11, 3, 64): (24, 48),
    (5, 64, 256): (64, 128),
    (3, 256, 256): (64, 128),
}
_TABLES = {
    "cifar": {(3, 3, 32): (16, 24), (3, 64, 64): (36, 72), (3, 128, 128): (72, 144), **_IN_BOTH},
    "stl-10": {(3, 3, 32): (12, 24), (3, 64, 64): (48, 96), (3, 128, 128): (96, 192), **_IN_BOTH},
}
"""(kernel, in, out) of the paper's layers -> (c_kb, c_ts): channels of the knowledge base and of Z."""

_MAX_NUMBERS = 2**22
"""Of one layer's U, where the paper does not have the layer."""
_STRIDE = 2


@final
@dataclass(frozen=True, kw_only=True)
class Deconvolution(AbstractKernelSharing):
    """Z = transposed_conv(KB, V, stride 2) + b0 and W = Z . U; KB is shared, V, b0, U and the bias are the task's.

    Shapes for a convolution k x k from c_in to c_out: KB (c_kb, h, h), V (c_kb, c_ts, f, f), b0 (c_ts,),
    U (c_ts, c_out, c_in), Z (c_ts, k, k), with h = ceil((k + 1) / 2). A linear layer is treated as one kernel of
    ``out x in`` pixels between one channel and one, so its U has c_ts numbers ([Lee2019]_ has convolutions only).
    """

    name: ClassVar[str] = "dfcnn"

    sizes: Literal["cifar", "stl-10"] = "cifar"
    """The paper's table of the channels of the knowledge base and of Z, for layer sizes that both have; other layers
    follow a rule."""
    filter_size: Annotated[int, Range(least=1, most=2**10)] = 3
    """Side of the transposed convolution's filter; odd."""
    start: Literal["identity", "scaled", "glorot"] = "identity"
    """``identity``: a transferred layer starts as a plain one, and a step of U, the task's matrix, is a plain layer's
    step. ``scaled``: at random, with a plain kernel's deviation; this is also the start of kernels with more pixels
    than the task makes channels. ``glorot``: as the paper has it."""
    factors_start: Literal["fresh", "latest"] = "latest"
    """A new task's part of a transferred layer starts as ``start`` says, or from the latest task that transferred
    it."""
    step_scale: Annotated[float, Range(above=0)] = 0.1
    """Step size of the knowledge base and of the task's filter and its bias, relative to plain weights'; positive. The
    task's matrix and the layer's bias move as plain weights do."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.filter_size % 2 == 0:
            raise ConfigError(f"Deconvolution.filter_size must be odd; got {self.filter_size}.")

    def shared_kernel_shapes(self, kernel: Kernel) -> dict[str, tuple[int, ...]]:
        knowledge_channels, _ = self._channels(kernel)
        return {"knowledge": (knowledge_channels, *(size // _STRIDE + 1 for size in _split(kernel)[1]))}

    def task_kernel_shapes(self, kernel: Kernel) -> dict[str, tuple[int, ...]]:
        knowledge_channels, task_channels = self._channels(kernel)
        return {
            "filter": (knowledge_channels, task_channels, self.filter_size, self.filter_size),
            "filter_bias": (task_channels,),
            "combine": (task_channels, *_split(kernel)[0]),
        }

    def initial_shared_kernel(self, kernel: Kernel, plain: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        # Glorot-uniform; with ``glorot`` as TensorFlow counts the inputs and outputs of a tensor (1, h, h', c_kb)
        shape = self.shared_kernel_shapes(kernel)["knowledge"]
        area = shape[1] * shape[2]
        fan_out = shape[0] * (shape[1] if self.start == "glorot" else area)
        return {"knowledge": glorot_uniform(shape, area, fan_out, generator)}

    def initial_task_kernel(
        self, kernel: Kernel, shared: Weights, plain: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        shapes = self.task_kernel_shapes(kernel)
        (knowledge_channels, task_channels, *_), (_, out, inputs) = shapes["filter"], shapes["combine"]
        area = self.filter_size**2
        receptive = task_channels if self.start == "glorot" else 1  # TensorFlow's count for a tensor (c_ts, in, out)
        own = {
            "filter": glorot_uniform(shapes["filter"], knowledge_channels * area, task_channels * area, generator),
            "filter_bias": torch.zeros(task_channels),
            "combine": glorot_uniform(shapes["combine"], inputs * receptive, out * receptive, generator),
        }
        num_pixels = math.prod(_split(kernel)[1])
        if kernel.pretrained and (self.start != "identity" or num_pixels > task_channels):
            raise ConfigError(
                f"DF-CNN with start='{self.start}' cannot begin at a pretrained kernel of shape {kernel.shape}: it "
                f"makes {num_pixels} pixels from {task_channels} channels. Use hps, tf or low-rank, or leave such "
                f"layers to the task."
            )
        if self.start == "glorot":
            return own | {"filter_bias": glorot_uniform((task_channels,), 1, task_channels, generator)}
        target = plain.square().mean().sqrt()
        if self.start == "identity" and num_pixels <= task_channels:
            own["filter"] = self._identity_filter(kernel, shared["knowledge"], task_channels)
            own["combine"] *= target / own["combine"].square().mean().sqrt()
            own["combine"][:num_pixels] = _by_pixel(kernel, plain)  # W is the sum of these alone
        else:
            made = self.kernel(kernel, shared, own)
            own["combine"] *= target / made.square().mean().sqrt().clamp_min(1e-12)
        return own

    @property
    def random_bias(self) -> bool:
        return self.start == "glorot"

    def blend_with_fresh(
        self, block: AbstractBlock, shared: Weights, task: Weights, fresh: Weights, keep: float
    ) -> dict[str, Tensor]:
        """Make W into keep W + sqrt(1 - keep^2) W', as an ``identity`` start would; the rest likewise.

        Without this Z grows from task to task, and with it how far one step moves W. (For the share of W', see
        ``AbstractBlock.fresh_share``.)
        """
        if self.start != "identity":
            return dict(task)
        before, away = self.weights(block, shared, task), block.fresh_share(keep)
        made = {name: keep * value + away * fresh[name].to(value) for name, value in before.items()}
        for name, kernel in kernels_of(block):
            prefix, slices = kernel.prefix, _by_pixel(kernel, made.pop(name))
            combine = task[f"{prefix}combine"].clone()
            if len(slices) > len(combine):
                return dict(task)
            combine[: len(slices)] = slices
            made |= {
                f"{prefix}filter": self._identity_filter(kernel, shared[f"{prefix}knowledge"], len(combine)),
                f"{prefix}filter_bias": torch.zeros_like(task[f"{prefix}filter_bias"]),
                f"{prefix}combine": combine,
            }
        return made

    def _identity_filter(self, kernel: Kernel, knowledge: Tensor, task_channels: int) -> Tensor:
        """Find the smallest V with Z_c = 1 at pixel c, 0 elsewhere, or as near to it as the knowledge base allows."""
        channels, side = knowledge.shape[0], self.filter_size
        units = torch.eye(channels * side**2, dtype=torch.float64, device=knowledge.device)
        units = units.view(-1, channels, side, side).transpose(0, 1)
        answers = self._deconvolve(kernel, knowledge.double(), units, None).flatten(1).T  # (pixels, filter's numbers)
        wanted = torch.eye(len(answers), task_channels, dtype=torch.float64, device=answers.device)
        found = torch.linalg.pinv(answers) @ wanted
        filters: Tensor = found.view(channels, side, side, task_channels).permute(0, 3, 1, 2).contiguous()
        return filters.to(knowledge.dtype)

    def kernel(self, kernel: Kernel, shared: Weights, task: Weights) -> Tensor:
        made = self._deconvolve(kernel, shared["knowledge"], task["filter"], task["filter_bias"])
        weight: Tensor = torch.tensordot(task["combine"], made, dims=([0], [0])).reshape(kernel.shape)
        return weight

    def step(self, parameter: str) -> float:
        return self.step_scale if parameter.rpartition(".")[2] in ("knowledge", "filter", "filter_bias") else 1.0

    def _deconvolve(self, kernel: Kernel, knowledge: Tensor, filters: Tensor, bias: Tensor | None) -> Tensor:
        """Return Z of shape (channels of the filters, kernel's sides)."""
        height, width = _split(kernel)[1]
        padding = (self.filter_size - 1) // 2
        made = F.conv_transpose2d(knowledge.unsqueeze(0), filters, bias, stride=_STRIDE, padding=padding)
        return made[0, :, :height, :width]  # an even side is cut from the next odd one

    def _channels(self, kernel: Kernel) -> tuple[int, int]:
        """Return c_kb and c_ts: the paper's where it has the layer, else its pattern (STL-10): c_ts = 1 to 1.5 c_out.

        Where U would then have millions of numbers, as in the last stages of a residual network, c_ts is only as large
        as Z needs to be any kernel: one channel for each pixel.
        """
        (out, inputs), (side, other) = _split(kernel)
        if len(kernel.shape) == 2:
            return 4, 8
        rule = out if inputs < out else out + out // 2
        if rule * out * inputs > _MAX_NUMBERS:
            rule = min(rule, side * other)
        if kernel.pretrained:
            rule = max(rule, side * other)
        known = _TABLES[self.sizes].get((side, inputs, out))
        if known is not None and not (kernel.pretrained and known[1] < side * other):
            return known
        return -(-rule // 2), rule


def _split(kernel: Kernel) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return channels (out, in) and spatial sides of a kernel; a matrix is all space, one dimension counts as two."""
    out, inputs, *sides = kernel.shape
    if not sides:
        return (1, 1), (out, inputs)
    return (out, inputs), (sides[0], math.prod(sides[1:]))


def _by_pixel(kernel: Kernel, weight: Tensor) -> Tensor:
    """Return a kernel as one matrix for each of its pixels, shape (pixels, out, in)."""
    return weight.reshape(*_split(kernel)[0], -1).permute(2, 0, 1)
