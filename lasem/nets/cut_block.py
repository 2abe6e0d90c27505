"""A block that a torch module computes, with weights and statistics that are given to it."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from lasem.errors import TrainingError
from lasem.nets.block import AbstractWholeBlock, Value, Weights
from lasem.nets.exact import rounds
from lasem.nets.initial import InitialWeights


@final
class CutBlock(AbstractWholeBlock):
    """Part of a module. It holds the module's structure, and its weights only as where to start from.

    Weights are the parameters that require gradients, under the names that they have in the whole module; of tied ones,
    under the first. Statistics are the buffers that training changes. All else, other buffers and frozen parameters,
    never changes and belongs to the network.
    """

    def __init__(self, module: nn.Module, name: str, *, statistics: frozenset[str], pretrained: bool) -> None:
        """Take a module apart.

        Args:
            module: takes one value and gives one; it is copied.
            name: what messages call it.
            statistics: names of the buffers that training changes.
            pretrained: whether its weights are where every task's weights start, or only its structure counts.
        """
        tensors: dict[str, Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        held = {key: value.detach().cpu().clone() for key, value in tensors.items()}
        self.name, self.pretrained = name, pretrained
        self._start = {key: held[key] for key, value in module.named_parameters() if value.requires_grad}
        fresh = _fresh_statistics(module) if statistics and not pretrained else {}
        self._measured = {key: fresh.get(key, held[key]) for key in held if key in statistics}
        self._constants = Constants({k: v for k, v in held.items() if k not in self._start and k not in self._measured})
        self._kernels = tuple(key for key in self._start if is_kernel(module, key))
        self._aliases = _aliases(module)
        structure = copy.deepcopy(module).to("meta")
        self._evaluating, self._training = structure.eval(), copy.deepcopy(structure).train()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the weights, in the module's own order; those that are no kernels may have any number of dimensions."""
        return {key: tuple(value.shape) for key, value in self._start.items()}

    @property
    def kernels(self) -> tuple[str, ...]:
        """Matrices, and the kernels of convolutions; see ``is_kernel``."""
        return self._kernels

    @property
    def statistics(self) -> dict[str, tuple[int, ...]]:
        """Of the buffers that training changes."""
        return {key: tuple(value.shape) for key, value in self._measured.items()}

    @property
    def start(self) -> Mapping[str, Tensor]:
        """The module's own weights."""
        return self._start

    @property
    def constants(self) -> Mapping[str, Tensor]:
        """What never changes."""
        return self._constants.tensors

    def initial_statistics(self) -> dict[str, Tensor]:
        """The module's if it is pretrained, else what its layers begin with (``reset_running_stats``)."""
        return {key: value.clone() for key, value in self._measured.items()}

    def initial(self, generator: torch.Generator, rule: InitialWeights) -> dict[str, Tensor]:
        """The module's weights if it is pretrained, else fresh ones.

        Fresh are what the module's layers give themselves (``reset_parameters``), whatever ``rule`` says; parameters
        outside of such layers are normal with the mean and the deviation of the module's.
        """
        if self.pretrained:
            return {key: value.clone() for key, value in self._start.items()}
        fresh = {}
        for key, value in self._start.items():
            spread = float(value.std(correction=0)) if value.numel() > 1 else 0.0
            drawn = torch.randn(value.shape, generator=generator) if spread > 0 else torch.zeros(value.shape)
            fresh[key] = value.mean() + spread * drawn
        seed = int(torch.randint(2**62, (1,), generator=generator))
        layers = copy.deepcopy(self._evaluating).to_empty(device="cpu")
        with torch.random.fork_rng(devices=[]), torch.no_grad():  # layers draw from the global source only
            torch.manual_seed(seed)
            for prefix, layer in layers.named_modules():
                reset = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
                if reset is not None:
                    reset()
                    own = dict(layer.named_parameters(prefix=prefix))
                    fresh |= {key: value.detach().clone() for key, value in own.items() if key in fresh}
        return fresh

    def apply(self, weights: Weights, x: Value) -> Value:
        """Run the module in evaluation."""
        return self._run(self._evaluating, weights, x)

    def measure(self, weights: Weights, x: Value) -> tuple[Value, dict[str, Tensor]]:
        """Run the module in training.

        Raises:
            TrainingError: if the mini-batch is too small to be normalised.
        """
        measured = {key: weights[key].clone() for key in self._measured}
        try:
            out = self._run(self._training, {**weights, **measured}, x)
        except ValueError as error:
            raise TrainingError(
                f"Block '{self.name}' cannot be trained on a mini-batch of {len(x)} ({error}) Set "
                f"TrainingConfig.drop_last=True, or a batch_size that leaves no rest of one image."
            ) from error
        return out, measured

    def _run(self, structure: nn.Module, weights: Weights, x: Tensor) -> Tensor:
        if x.ndim == 4:
            x = x.contiguous()  # modules may ask for views that channels_last does not have
        given = {key: weights[key] for key in (*self._start, *self._measured)} | self._constants.beside(x)
        given |= {alias: given[key] for alias, key in self._aliases.items()}  # on meta tied tensors are tied no more
        out: Tensor = torch.func.functional_call(structure, given, (x,), tie_weights=False)
        return out


@final
class Constants:
    """Tensors that never change, wherever and as exactly as a block computes."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        """Take them, on the CPU."""
        self.tensors = tensors
        self._placed: dict[tuple[torch.device, torch.dtype], dict[str, Tensor]] = {}

    def beside(self, x: Tensor) -> dict[str, Tensor]:
        """On the device of ``x``, floating ones in its precision."""
        dtype = torch.float32 if rounds(x.device) else x.dtype  # where torch rounds, it does so where it has to
        place = (x.device, dtype)
        if place not in self._placed:
            self._placed[place] = {
                key: value.to(x.device, dtype if value.is_floating_point() else None)
                for key, value in self.tensors.items()
            }
        return self._placed[place]


def _aliases(module: nn.Module) -> dict[str, str]:
    """The further names of tied tensors, each with the first one; of a submodule in two places there is one name."""
    aliases, first = {}, dict[int, str]()
    for prefix, layer in module.named_modules():
        for kind in (layer.named_parameters, layer.named_buffers):
            for name, value in kind(prefix=prefix, recurse=False, remove_duplicate=False):
                if first.setdefault(id(value), name) != name:
                    aliases[name] = first[id(value)]
    return aliases


def _fresh_statistics(module: nn.Module) -> dict[str, Tensor]:
    """What its layers begin to measure with, of those that can begin anew; on the CPU."""
    fresh: dict[str, Tensor] = {}
    for prefix, layer in copy.deepcopy(module).named_modules():
        reset = getattr(layer, "reset_running_stats", None)
        if reset is not None:
            reset()
            fresh |= {key: value.detach().cpu() for key, value in layer.named_buffers(prefix=prefix)}
    return fresh


def is_kernel(module: nn.Module, name: str) -> bool:
    """Whether a parameter is a matrix, or the kernel of a convolution (not of a transposed one, which is (in, out))."""
    owner = module.get_submodule(name.rpartition(".")[0])
    shape = module.get_parameter(name).shape
    convolution = isinstance(owner, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    return (len(shape) == 2 or (convolution and name.endswith("weight"))) and math.prod(shape) > 0
