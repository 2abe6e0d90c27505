"""Trees of tensors: frozen dataclasses, dicts and tuples, nested, whose leaves are tensors and plain values."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

Path = tuple[str | int, ...]
"""Where a leaf is: the fields, keys and positions on the way to it."""

Tree = TypeVar("Tree")

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""By their bytes: comparing these is five times as fast as comparing bytes."""


def flatten(tree: Any) -> dict[Path, Tensor]:
    """Return every tensor of a tree by its path, in the tree's order."""
    if isinstance(tree, Tensor):
        return {(): tree}
    return {(key, *path): leaf for key, child in _children(tree).items() for path, leaf in flatten(child).items()}


def with_tensors(tree: Tree, tensors: Mapping[Path, Tensor | None]) -> Tree:
    """Return a tree with other tensors at some paths; those at other paths stay."""

    def at(path: Path, tree: Any) -> Any:
        if isinstance(tree, Tensor):
            return tensors.get(path, tree)
        return _like(tree, {key: at((*path, key), child) for key, child in _children(tree).items()})

    result: Tree = at((), tree)
    return result


def map_tensors(function: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """Return a tree with a function of every tensor in its place."""
    return with_tensors(tree, {path: function(tensor) for path, tensor in flatten(tree).items()})


def named(tree: Any) -> dict[str, Tensor]:
    """Return every tensor of a tree by a dotted name such as ``layers.0.shared.weight``."""
    return {".".join(map(str, path)): tensor for path, tensor in flatten(tree).items()}


def without_same(tree: Tree, like: Any) -> Tree:
    """Return a tree with None for each tensor that is, to the bit, the one at its path in ``like``; see ``unpack``."""
    known = flatten(like)
    same = [path for path, tensor in flatten(tree).items() if path in known and _same_bits(tensor, known[path])]
    return with_tensors(tree, dict.fromkeys(same))


def pack(tree: Any, name: str = "") -> tuple[dict[str, Tensor], Any]:
    """Take a tree apart for files: its tensors by dotted name, and all else for JSON. Keys of dicts are strings."""
    if isinstance(tree, Tensor):
        return {name: tree}, {"tensor": name}
    if not _is_inner(tree):
        return {}, tree
    parts = {key: pack(child, f"{name}.{key}" if name else str(key)) for key, child in _children(tree).items()}
    tensors = {leaf: tensor for part, _ in parts.values() for leaf, tensor in part.items()}
    plain = {key: entry for key, (_, entry) in parts.items()}
    return tensors, list(plain.values()) if isinstance(tree, (tuple, list)) else plain


def unpack(tensors: Mapping[str, Tensor], plain: Any, like: Any) -> Any:
    """Put together copies of what ``pack`` took apart, tensors where those of a tree of the same dataclasses are.

    None where a tensor is expected stands for the one of ``like`` (``without_same``). KeyError, TypeError or
    ValueError if the parts are not of such a tree.
    """
    known = _children(like)
    if is_dataclass(like) and plain is not None and plain.keys() != known.keys():
        raise ValueError(f"it has {', '.join(sorted(plain))} where {', '.join(sorted(known))} are expected")
    if isinstance(plain, dict) and plain.keys() == {"tensor"}:
        tensor = tensors[plain["tensor"]]
        return tensor.to(like.device if isinstance(like, Tensor) else tensor.device, copy=True)
    if isinstance(like, Tensor):
        if plain is None:
            return like.detach().clone()
        raise TypeError(f"it has {plain} where a tensor is expected")
    if isinstance(plain, list):
        return tuple(unpack(tensors, entry, known.get(index)) for index, entry in enumerate(plain))
    if isinstance(plain, dict):
        return _like(like if _is_inner(like) else {}, {k: unpack(tensors, v, known.get(k)) for k, v in plain.items()})
    return plain


def _same_bits(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    bits = _INTEGERS.get(one.element_size(), torch.uint8)
    one, other = (t.detach().to(one.device).reshape(-1).view(bits) for t in (one, other))
    return torch.equal(one, other)


def _is_inner(tree: Any) -> bool:
    return isinstance(tree, (Mapping, tuple, list)) or (is_dataclass(tree) and not isinstance(tree, type))


def _children(tree: Any) -> dict[Any, Any]:
    if isinstance(tree, Mapping):
        return dict(tree)
    if isinstance(tree, (tuple, list)):
        return dict(enumerate(tree))
    return {field.name: getattr(tree, field.name) for field in fields(tree)} if _is_inner(tree) else {}


def _like(tree: Any, children: Mapping[Any, Any]) -> Any:
    if isinstance(tree, Mapping):
        return dict(children)
    if isinstance(tree, (tuple, list)):
        return tuple(children.values())
    return replace(tree, **children) if _is_inner(tree) else tree
