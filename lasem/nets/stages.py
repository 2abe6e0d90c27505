"""The stages of a model without its classifier, as groups of submodules that ``cut`` makes blocks of."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, pairwise, takewhile
from typing import Literal

from torch import nn

from lasem.errors import ConfigError
from lasem.nets.cut_block import is_kernel
from lasem.nets.tracing import Flow, within, without_dropout

Groups = Literal["stages", "blocks"] | Sequence[int]

MOST_STAGES = 8
_LARGE_STEM = 0.1
"""Share of a model's weights from which on its stem is a stage of its own: a table of words."""
_NEARLY_ALL = 0.8
"""Share of the weights of two stages from which on the larger is taken apart: most of a model is in one list."""


def stage_groups(model: nn.Module, groups: Groups = "stages") -> list[list[str]]:
    """Group the submodules of a model, input side first, for ``cut(model, blocks, classifier=None)``.

    A residual or attention block, or else a layer, is never divided, and stages between which more than one tensor
    passes are one. What comes before the first of them belongs to it, unless it holds a tenth of all weights, and what
    comes after the last to the last.

    Args:
        model: from images or texts to features; without its classifier, as ``timm.create_model(..., num_classes=0)``.
        groups: ``"stages"``: the model's stages; more than eight, such as a transformer's blocks, are put together into
            at most eight of nearly equal length. ``"blocks"``: every block for itself. Or the number of blocks in
            each group.

    Raises:
        ConfigError: if the model cannot be traced, or the numbers do not fit its blocks.
    """
    if isinstance(groups, str) and groups not in ("stages", "blocks"):
        raise ConfigError(f"groups must be 'stages', 'blocks' or numbers of blocks; got '{groups}'.")
    flow, inside = _called(model, _stages(model) if groups == "stages" else dict(_units(model)))
    kernels = {name: _num_kernels(model.get_submodule(name)) for name in inside}
    least = 2 if any(inside[name] and kernels[name] > 1 for name in inside) else 1
    is_block = {name for name in inside if inside[name] and kernels[name] >= least}
    separate, between, num_apart = list[list[str]](), list[list[str]](), 0
    for names in _apart(flow, inside):
        if is_block.isdisjoint(names):
            between.append(names)
            continue
        while separate and between and _belongs_before(between[0], separate[-1], names, kernels):
            separate[-1] += between.pop(0)
        if not separate and between and _is_large([*chain(*between)], model):
            separate, between, num_apart = [[*chain(*between)]], [], 1
        separate.append([*chain(*between), *names])
        between = []
    if not separate:
        raise ConfigError(f"{type(model).__name__} has no submodules with weights; there is no stage to transfer.")
    separate[-1] += chain(*between)
    if groups == "blocks":
        return separate
    if groups == "stages":
        return separate[:num_apart] + merged(separate[num_apart:], MOST_STAGES - num_apart)
    if sum(groups) != len(separate) or min(groups) < 1:
        raise ConfigError(
            f"{type(model).__name__} has {len(separate)} blocks; expected groups of as many in all, got "
            f"{', '.join(map(str, groups))}."
        )
    rest = iter(separate)
    return [[name for _ in range(size) for name in next(rest)] for size in groups]


def _apart(flow: Flow, names: Collection[str]) -> Iterator[list[str]]:
    """Yield submodules in their order, those together between which more than one tensor passes."""
    found, last = list[str](), 0
    for k, step in enumerate(flow.steps):
        name = flow.name_of(step)
        if step.op != "call_module" or name not in names:
            continue
        if found and any(len(flow.crossing(place)) == 1 for place in range(last + 1, k + 1)):
            yield found
            found = []
        found.append(name)
        last = k
    yield found


def _is_large(stem: list[str], model: nn.Module) -> bool:
    return sum(_num_weights(model.get_submodule(name)) for name in stem) > _LARGE_STEM * _num_weights(model)


def _belongs_before(names: list[str], before: list[str], after: list[str], kernels: Mapping[str, int]) -> bool:
    """Return whether submodules between two blocks lie with the first; if with none, normalisation belongs to it."""
    path = names[0].split(".")
    first, second = (
        sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(path, of.split("."), strict=False)))
        for of in (before[-1], after[0])
    )
    return first > second or (first == second and not any(kernels[name] for name in names))


def merged(found: list[list[str]], most: int) -> list[list[str]]:
    """Put neighbours together so that at most some groups of nearly equal length are left."""
    num = -(-len(found) // -(-len(found) // most))
    bounds = [round(i * len(found) / num) for i in range(num + 1)]
    return [[name for group in found[a:b] for name in group] for a, b in pairwise(bounds)]


def _called(model: nn.Module, parts: dict[str, bool]) -> tuple[Flow, dict[str, bool]]:
    """Trace a model whose parts are one step each; of parts that it does not call, their submodules are instead."""
    tensors = (*model.parameters(), *model.buffers())
    module = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})  # they are only looked at
    without_dropout(module)
    while True:
        flow = Flow(module, list(parts))
        steps = {flow.name_of(step) for step in flow.steps if flow.parameters_of(step)} - parts.keys()
        opened = {name for name in parts if any(within(step, name) for step in steps)}
        if not opened:
            return flow, parts
        parts = _opened(model, parts, opened)


def _stages(model: nn.Module) -> dict[str, bool]:
    """Name the parts of a model at the level where its stages are next to each other, and say whether each is one."""
    inner = _inner(model)
    parts = {name: name in inner or not inner for name, _ in _with_weights(model)}
    while True:
        sizes = {name: _num_weights(model.get_submodule(name)) for name, inside in parts.items() if inside}
        largest = max(sizes, key=sizes.__getitem__, default="")
        if len(sizes) > 2 or not largest or not _is_container(model.get_submodule(largest)):
            return parts
        if sizes[largest] < _NEARLY_ALL * sum(sizes.values()):
            return parts
        parts = _opened(model, parts, {largest})


def _opened(model: nn.Module, parts: dict[str, bool], names: Collection[str]) -> dict[str, bool]:
    """Replace some parts by their submodules with weights."""
    opened = dict[str, bool]()
    for name, inside in parts.items():
        of = [f"{name}.{child}" for child, _ in _with_weights(model.get_submodule(name))] if name in names else [name]
        opened |= dict.fromkeys(of, inside)
    return opened


def _units(module: nn.Module, path: str = "", inside: bool = False) -> Iterator[tuple[str, bool]]:
    """Name the parts of a module down to its blocks, and say whether each lies where the blocks are."""
    inner = _inner(module)
    for name, child in _with_weights(module):
        within_blocks = inside or name in inner or not (path or inner)
        if _is_container(child):
            yield from _units(child, f"{path}{name}.", within_blocks)
        else:
            yield path + name, within_blocks


def _inner(module: nn.Module) -> list[str]:
    """Name the submodules that hold a module's blocks."""
    children = dict(_with_weights(module))
    lists = [name for name, child in children.items() if _is_container(child)]
    rich = [
        name
        for name in lists
        if any(_num_kernels(children[name].get_submodule(unit)) > 1 for unit, _ in _units(children[name]))
    ]
    kinds = {type(children[name]) for name in rich}
    return [
        name
        for name, child in children.items()
        if name in (rich or lists) or (name not in lists and type(child) in kinds and _num_kernels(child) > 1)
    ]


def _is_container(module: nn.Module) -> bool:
    """Return whether a module is a list of blocks or holds one."""
    children = [child for _, child in _with_weights(module)]
    blocks = [child for child in children if _num_kernels(child) > 1]
    if isinstance(module, nn.Sequential | nn.ModuleList):
        return _num_kernels(module) > 1
    alike = len(blocks) > 1 and len(blocks) == len(children) and len({type(child) for child in blocks}) == 1
    lists = (child for child in children if isinstance(child, nn.Sequential | nn.ModuleList))
    return alike or any(_num_kernels(part) > 1 for some in lists for _, part in _with_weights(some))


def _with_weights(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, child) for name, child in module.named_children() if any(True for _ in child.parameters()))


def _num_weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _num_kernels(module: nn.Module) -> int:
    return sum(is_kernel(module, name) for name, _ in module.named_parameters())
