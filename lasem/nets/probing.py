"""Trial runs of the parts of a module on random images, which show whether each can be a block."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lasem.errors import ConfigError
from lasem.nets.cut_block import CutBlock


def agree(found: Tensor, expected: Tensor) -> bool:
    """Return whether two results are the same up to rounding."""
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def features_of(module: nn.Module, classifier: nn.Linear | None, x: Tensor) -> Tensor:
    """Return the inputs of a module's classifier for images, in evaluation; without a classifier, the outputs."""
    seen: list[Any] = []
    handle = classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0])) if classifier else None
    try:
        out = module.eval()(x)
    except Exception as error:  # anything that the module's own code raises
        raise ConfigError(
            f"{type(module).__name__} cannot take images of shape {tuple(x.shape[1:])}: {error}. Give the image_shape "
            f"that it is made for."
        ) from error
    finally:
        if handle is not None:
            handle.remove()
    features = seen[0] if seen else out
    if not isinstance(features, Tensor):
        raise ConfigError(f"{type(module).__name__} gives a {type(features).__name__}; expected one tensor.")
    return features


@torch.no_grad()
def make_blocks(
    parts: Sequence[nn.Module], names: Sequence[str], x: Tensor, *, pretrained: bool
) -> tuple[tuple[CutBlock, ...], Tensor]:
    """Make blocks of the parts of a module, for two random images, and return them with the output of the last."""
    blocks: list[CutBlock] = []
    block_of: dict[int, str] = {}
    for part, name in zip(parts, names, strict=True):
        for path, parameter in part.named_parameters():
            other = block_of.setdefault(id(parameter), name)
            if other != name:
                raise ConfigError(
                    f"Parameter '{path}' is used in two blocks, '{other}' and '{name}'. Group them into one block."
                )
        if not any(parameter.requires_grad for parameter in part.parameters()):
            raise ConfigError(f"Block '{name}' has no weights that require gradients. Group it with another block.")
        block = CutBlock(part, name, statistics=_changed_by_training(part, x, name), pretrained=pretrained)
        out = _evaluated(part, x, name)
        _check_same(block, part, x, out)
        blocks.append(block)
        x = out
    return tuple(blocks), x


def _check_same(block: CutBlock, part: nn.Module, x: Tensor, expected: Tensor) -> None:
    """Raise ConfigError if the block with the part's weights does not compute the same as the part."""
    difference = "something else than its submodules do"
    try:
        if agree(block.apply({**dict(part.named_parameters()), **dict(part.named_buffers())}, x.clone()), expected):
            return
    except Exception as error:  # anything that the module's own code raises
        difference = f"{type(error).__name__}: {error}"
    raise ConfigError(
        f"Block '{block.name}' cannot be run with weights that are given to it ({difference}): it computes with "
        f"tensors that are neither its parameters nor its buffers. Register them, or write that layer in plain "
        f"operations."
    )


def _changed_by_training(part: nn.Module, x: Tensor, name: str) -> frozenset[str]:
    """Return the names of buffers that a mini-batch of training changes."""
    trained = copy.deepcopy(part).train()
    before = {key: value.clone() for key, value in trained.named_buffers()}
    with torch.random.fork_rng(devices=[]):
        source = torch.random.get_rng_state()
        trained(x.clone())
        if not torch.equal(source, torch.random.get_rng_state()):
            kinds = {path: type(module).__name__ for path, module in part.named_modules()}
            random = ", ".join(f"'{path}' ({kind})" for path, kind in kinds.items() if "drop" in kind.lower())
            raise ConfigError(
                f"Block '{name}' draws random numbers in training{', in ' if random else ''}{random}; blocks must be "
                f"functions of weights and inputs. Set its rates to 0 (the head has cut's dropout=...)."
            )
    return frozenset(key for key, value in trained.named_buffers() if not torch.equal(value, before[key]))


def _evaluated(part: nn.Module, x: Tensor, name: str) -> Tensor:
    given = x.clone()
    out = part.eval()(given)
    if not isinstance(out, Tensor) or out.ndim < 2 or len(out) != len(x):
        what = f"a tensor of shape {tuple(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
        raise ConfigError(
            f"Block '{name}' gives {what} for {len(x)} images; expected one tensor of shape ({len(x)}, ...). Group it "
            f"with the block behind it."
        )
    if not torch.equal(given, x):
        raise ConfigError(
            f"Block '{name}' changes its input in place, which other branches need as it is. Set inplace=False in its "
            f"first layer, or group it with the block before it."
        )
    if not agree(part(x[:1]), out[:1]):
        raise ConfigError(
            f"What block '{name}' gives for an image depends on the other images of the batch, also in evaluation. "
            f"Normalisation layers need running statistics (track_running_stats=True)."
        )
    return out
