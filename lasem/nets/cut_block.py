"""Blocks that a torch module computes, with weights and statistics that are passed to it."""

import copy
import math
from collections.abc import Container
from functools import partial
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lasem.errors import ConfigError, TrainingError
from lasem.nets.block import AbstractWholeBlock, InitialWeights, Value, Weights, full_precision, rounds


@final
class CutBlock(AbstractWholeBlock):
    """Part of a module. It holds the module's structure, and its weights only as a start.

    Weights are the parameters that require gradients, under the names that they have in the whole module; of tied ones,
    under the first. Statistics are the buffers that training changes. All else, other buffers and frozen parameters,
    never changes and belongs to the network.
    """

    def __init__(self, module: nn.Module, name: str, *, statistics: frozenset[str], pretrained: bool) -> None:
        """Copy a module from one value to one, whose ``statistics`` are the buffers that training changes."""
        tensors: dict[str, Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        held = {key: t.detach().cpu().clone(memory_format=torch.contiguous_format) for key, t in tensors.items()}
        self.name, self.pretrained = name, pretrained
        self.any_layout = False
        """Whether images may be channels_last, which is faster on a CPU; modules may ask for views that it has not."""
        self.side: int | None = None
        """Height and width to which images are enlarged first."""
        self.start = {key: held[key] for key, value in module.named_parameters() if value.requires_grad}
        """The module's own weights."""
        fresh = _fresh_statistics(module) if statistics and not pretrained else {}
        self._measured = {key: fresh.get(key, held[key]) for key in held if key in statistics}
        self.constants = {k: v for k, v in held.items() if k not in self.start and k not in self._measured}
        """Tensors that never change."""
        self._constants, self._own = Constants(self.constants), Constants({**self.start, **self._measured})
        self._kernels = tuple(key for key in self.start if is_kernel(module, key))
        self._aliases = _aliases(module)
        self.forgets = False
        """Whether it starts afresh for every input, because layers keep what they computed from earlier weights."""
        self.structure = copy.deepcopy(module).to("meta").eval()
        """The module without its tensors."""
        self._training = copy.deepcopy(self.structure).train() if self._measured else self.structure

    def enlarge_to(self, side: int | None) -> None:
        """Enlarge images to a side before anything else."""
        self.side = side

    @property
    def module_tensors(self) -> dict[str, Tensor]:
        """All tensors of the module, by name."""
        return {**self.constants, **self.start, **self._measured}

    def tensors_with(self, weights: Weights) -> dict[str, Tensor]:
        """Return all tensors of the module with a task's weights and statistics in place of its own, on the CPU."""
        return {**self.module_tensors, **weights}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {key: tuple(value.shape) for key, value in self.start.items()}

    @property
    def kernels(self) -> tuple[str, ...]:
        return self._kernels

    @property
    def statistics(self) -> dict[str, tuple[int, ...]]:
        return {key: tuple(value.shape) for key, value in self._measured.items()}

    def initial_statistics(self) -> dict[str, Tensor]:
        """Return the module's if it is pretrained, else those of fresh layers (``reset_running_stats``)."""
        return {key: value.clone() for key, value in self._measured.items()}

    def initial(self, generator: torch.Generator, rule: InitialWeights) -> dict[str, Tensor]:
        """Return the module's weights if it is pretrained, else fresh ones.

        Fresh ones are drawn by the module's layers (``reset_parameters``), whatever ``rule`` says; parameters outside
        of such layers are normal with the mean and the deviation of the module's.
        """
        if self.pretrained:
            return {key: value.clone() for key, value in self.start.items()}
        fresh = {}
        for key, value in self.start.items():
            spread = float(value.std(correction=0)) if value.numel() > 1 else 0.0
            drawn = torch.randn(value.shape, generator=generator) if spread > 0 else torch.zeros(value.shape)
            fresh[key] = value.mean() + spread * drawn
        seed = int(torch.randint(2**62, (1,), generator=generator))
        layers = copy.deepcopy(self.structure).to_empty(device="cpu")
        with torch.random.fork_rng(devices=[]), torch.no_grad():  # layers draw from the global source only
            torch.manual_seed(seed)
            for prefix, layer in layers.named_modules():
                reset = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
                if reset is not None:
                    reset()
                    own = dict(layer.named_parameters(prefix=prefix))
                    fresh |= {key: value.detach().clone() for key, value in own.items() if key in fresh}
        return fresh

    def held(self, like: Tensor) -> Weights:
        own = self._own.like(like) if self.pretrained else {}
        return {key: own[key] for key in self.start if key in own}

    def apply(self, weights: Weights, x: Value) -> Value:
        if self.forgets:
            self.structure.train().eval()
        return self._run(self.structure, weights, x)

    def measure(self, weights: Weights, x: Value) -> tuple[Value, dict[str, Tensor]]:
        if not self._measured:
            return self.apply(weights, x), {}
        measured = {key: weights[key].clone() for key in self._measured}
        try:
            out = self._run(self._training, {**weights, **measured}, x)
        except ValueError as error:
            raise TrainingError(
                f"Block '{self.name}' normalises by the mini-batch, so that it cannot be trained on {len(x)} image "
                f"({error}). Give it at least two images, and set TrainingConfig.batch_size to 2 or more."
            ) from error
        return out, measured

    def _run(self, structure: nn.Module, weights: Weights, x: Tensor) -> Tensor:
        if self.side is not None and x.shape[-1] != self.side:
            x = F.interpolate(x, (self.side, self.side), mode="bicubic", align_corners=False)
        if x.ndim == 4 and not self.any_layout:
            x = x.contiguous()
        own = {key: weights[key] for key in (*self.start, *self._measured) if key in weights}
        if self.pretrained and len(own) < len(self.start) + len(self._measured):
            own = {**self._own.like(x), **own}
        given = own | self._constants.like(x)
        given |= {alias: given[key] for alias, key in self._aliases.items()}  # on meta tied tensors are tied no more
        out: Tensor = torch.func.functional_call(structure, given, (x,), tie_weights=False)
        return out


_DOWN, _UP = ".down", ".up"


@final
class ChangedBlock(AbstractWholeBlock):
    """A block of a pretrained module whose weights are a change of low rank, while the module's own stay as they are.

    Every kernel is W = W_0 + B A: W_0 the module's, B (``KERNEL.up``) of shape (out, r) and A (``KERNEL.down``) of
    shape (r, inputs) the weights. A convolution's kernel is the matrix (out, in * height * width). B starts at 0, so
    that a change starts from the module itself, and r is at most the smaller side ([Hu2022]_ in
    ``lasem.sharing.low_rank``). Other parameters, such as biases and the scales of normalisation, stay the module's.
    """

    pretrained = True

    def __init__(self, block: CutBlock, rank: int) -> None:
        self.name, self._block = block.name, block
        if not block.kernels:
            raise ConfigError(
                f"Block '{block.name}' has no matrix or convolution whose change could have rank {rank}. Group it with "
                f"another block."
            )
        self._held = Constants(block.start)
        self._apart = _ApartLayers(block)
        self.is_apart = False
        """Whether the module calls its layers, which then compute the change by themselves, B (A x)."""
        self.constants = {**block.constants, **block.start}
        """Tensors that never change: of the module everything but the statistics."""
        self._shapes: dict[str, tuple[int, ...]] = {}
        for kernel in block.kernels:
            out, inputs = block.start[kernel].shape[0], math.prod(block.start[kernel].shape[1:])
            low = min(rank, out, inputs)
            self._shapes |= {kernel + _DOWN: (low, inputs), kernel + _UP: (out, low)}

    @property
    def side(self) -> int | None:
        """As of the block."""
        return self._block.side

    def enlarge_to(self, side: int | None) -> None:
        """Enlarge images to a side before anything else."""
        self._block.enlarge_to(side)
        self._apart.block.enlarge_to(side)

    @property
    def module_tensors(self) -> dict[str, Tensor]:
        """All tensors of the module, by name."""
        return self._block.module_tensors

    def tensors_with(self, weights: Weights) -> dict[str, Tensor]:
        """Return all tensors of the module with a task's changes of its kernels, on the CPU."""
        return self._block.tensors_with(self._changed(weights, torch.zeros(0)))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return self._shapes

    @property
    def statistics(self) -> dict[str, tuple[int, ...]]:
        return self._block.statistics

    def initial_statistics(self) -> dict[str, Tensor]:
        return self._block.initial_statistics()

    def fresh_share(self, keep: float) -> float:
        return math.sqrt(1 - keep**2)  # as for random weights: A starts at random

    def initial(self, generator: torch.Generator, rule: InitialWeights) -> dict[str, Tensor]:
        """Draw A from a normal with variance 1 / inputs and set B to 0; whatever ``rule`` says, no change."""
        return {
            name: torch.zeros(shape)
            if name.endswith(_UP)
            else torch.randn(shape, generator=generator) / math.sqrt(shape[1])
            for name, shape in self._shapes.items()
        }

    def apply(self, weights: Weights, x: Value) -> Value:
        if self.is_apart and weights:
            return self._apart.apply(weights, self._changed(weights, x, self._apart.kernels), x)
        return self._block.apply(self._changed(weights, x), x)

    def measure(self, weights: Weights, x: Value) -> tuple[Value, dict[str, Tensor]]:
        return self._block.measure(self._changed(weights, x), x)

    def _changed(self, weights: Weights, x: Tensor, without: Container[str] = ()) -> dict[str, Tensor]:
        """Return the block's weights and statistics, some kernels without their change; in the change's precision."""
        made = {**self._held.like(x), **{name: weights[name] for name in self.statistics if name in weights}}
        if not weights:
            return made
        with full_precision(x.device):
            for kernel in self._block.kernels:
                if kernel in without:
                    continue
                change = weights[kernel + _UP] @ weights[kernel + _DOWN]
                made[kernel] = made[kernel] + change.reshape(made[kernel].shape)
        return made


@final
class _ApartLayers:
    """A block whose linear layers and convolutions add B (A x) to W_0 x, which is cheaper than (W_0 + B A) x."""

    def __init__(self, block: CutBlock) -> None:
        self.block = copy.copy(block)
        self._weights: Weights = {}
        structure = copy.deepcopy(block.structure)
        self.kernels = tuple(kernel for kernel in block.kernels if self._hooked(structure, kernel))
        """Those whose change is not part of the weights any more."""
        self.block.structure = structure

    def apply(self, weights: Weights, made: Weights, x: Value) -> Value:
        """Run the block with the weights ``made``, and the changes in ``weights`` added by its layers."""
        self._weights = weights
        return self.block.apply(made, x)

    def _hooked(self, structure: nn.Module, kernel: str) -> bool:
        name, _, parameter = kernel.rpartition(".")
        layer = structure.get_submodule(name)
        convolves = type(layer) is nn.Conv2d and layer.groups == 1 and layer.padding_mode == "zeros"
        can = parameter == "weight" and (convolves or type(layer) is nn.Linear)
        if can:
            layer.register_forward_hook(partial(self._add, kernel))
        return can

    def _add(self, kernel: str, layer: nn.Module, given: tuple[Tensor], out: Tensor) -> Tensor:
        (x,), down, up = given, self._weights[kernel + _DOWN], self._weights[kernel + _UP]
        if not isinstance(layer, nn.Conv2d):
            return out + F.linear(F.linear(x, down), up)
        down = down.view(-1, layer.in_channels, *layer.kernel_size)
        low = F.conv2d(x, down, None, layer.stride, layer.padding, layer.dilation)
        return out + F.conv2d(low, up[:, :, None, None])


@final
class Constants:
    """Tensors that never change, on any device and in any precision that a block computes in."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        self._placed: dict[tuple[torch.device, torch.dtype], dict[str, Tensor]] = {}

    def like(self, x: Tensor) -> dict[str, Tensor]:
        """Return them on the device of ``x``, floating ones in its precision."""
        dtype = torch.float32 if rounds(x.device) else x.dtype  # where torch rounds, it does so where it has to
        place = (x.device, dtype)
        if place not in self._placed:
            self._placed[place] = {
                key: value.to(x.device, dtype if value.is_floating_point() else None)
                for key, value in self.tensors.items()
            }
        return self._placed[place]


def _aliases(module: nn.Module) -> dict[str, str]:
    """Map further names of tied tensors to the first one; a submodule in two places has one name."""
    aliases, first = {}, dict[int, str]()
    for prefix, layer in module.named_modules():
        for kind in (layer.named_parameters, layer.named_buffers):
            for name, value in kind(prefix=prefix, recurse=False, remove_duplicate=False):
                if first.setdefault(id(value), name) != name:
                    aliases[name] = first[id(value)]
    return aliases


def _fresh_statistics(module: nn.Module) -> dict[str, Tensor]:
    """Return the first statistics of layers that can begin anew, on the CPU."""
    fresh: dict[str, Tensor] = {}
    for prefix, layer in copy.deepcopy(module).named_modules():
        reset = getattr(layer, "reset_running_stats", None)
        if reset is not None:
            reset()
            fresh |= {key: value.detach().cpu() for key, value in layer.named_buffers(prefix=prefix)}
    return fresh


def is_kernel(module: nn.Module, name: str) -> bool:
    """Return whether a parameter is a matrix or a convolution's kernel (a transposed one is not: it is (in, out))."""
    owner = module.get_submodule(name.rpartition(".")[0])
    shape = module.get_parameter(name).shape
    convolution = isinstance(owner, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    return (len(shape) == 2 or (convolution and name.endswith("weight"))) and math.prod(shape) > 0
