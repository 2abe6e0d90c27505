"""The tree of configurations, which evaluates all of a space in one pass.

The output of layer l depends only on the first l choices, so the configurations of a space are the leaves of a binary
tree. It is evaluated level by level: the inputs of a level are stacked along the batch and run once with the shared and
once with the task-specific weights. For all 2^d configurations that is 2^(d+1)-2 layer evaluations instead of d*2^d.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, final

import torch
from torch import Tensor

from lasem.space.configuration import SPECIFIC, TRANSFER, Configuration

Stack = Any
"""Outputs of several nodes, stacked along the batch: a tensor, or a tuple of tensors."""

Branch = Callable[[int, bool, Stack], Stack]
"""``branch(layer, transferred, x)`` runs one layer on a stack of inputs with one kind of weights."""


@final
@dataclass(frozen=True)
class Level:
    """One layer of the tree. Its nodes are ordered: all task-specific children, then all transferred ones."""

    parents: tuple[tuple[int, ...], tuple[int, ...]]
    """Nodes of the level above that continue with task-specific weights, and those that continue with shared ones."""
    prefixes: tuple[tuple[str, ...], tuple[str, ...]]
    """Choices that lead to the children of ``parents``, such as ``ST``, the layer's own last."""
    num_parents: int

    @property
    def num_nodes(self) -> int:
        """Layer evaluations that this level costs."""
        return sum(map(len, self.parents))


@final
@dataclass(frozen=True)
class PrefixTree:
    """The tree over some configurations of equal depth."""

    levels: tuple[Level, ...]
    leaves: tuple[int, ...]
    """Of each configuration, so that ``output[leaves]`` restores their order."""

    @classmethod
    def of(cls, configurations: Sequence[Configuration]) -> "PrefixTree":
        """Build the tree over ``configurations``, which differ from each other and have the same depth."""
        texts = [str(configuration) for configuration in configurations]
        levels: list[Level] = []
        nodes = [""]
        for layer in range(len(texts[0])):
            wanted = {text[: layer + 1] for text in texts}
            specific, shared = (
                {node + kind: i for i, node in enumerate(nodes) if node + kind in wanted}
                for kind in (SPECIFIC, TRANSFER)
            )
            parents = tuple(specific.values()), tuple(shared.values())
            levels.append(Level(parents, (tuple(specific), tuple(shared)), num_parents=len(nodes)))
            nodes = [*specific, *shared]
        position = {node: i for i, node in enumerate(nodes)}
        return cls(tuple(levels), tuple(position[text] for text in texts))

    @property
    def num_leaves(self) -> int:
        """Configurations in the tree."""
        return len(self.leaves)

    @property
    def num_nodes(self) -> int:
        """Layer evaluations of one pass."""
        return sum(level.num_nodes for level in self.levels)

    def needs(self, layer: int, *, transferred: bool) -> bool:
        """Return whether any configuration transfers the layer (or learns its own)."""
        return bool(self.levels[layer].parents[transferred])

    def evaluate(self, x: Tensor, branch: Branch) -> Stack:
        """Run every configuration on one batch, where ``branch`` treats entries, or those of each node, independently.

        Returns:
            Outputs of the last layer in the order of the leaves, shape ``(num_leaves * batch, ...)``.
        """
        batch = x.shape[0]
        values: Stack = x
        for layer, level in enumerate(self.levels):
            children = [
                branch(layer, transferred, selected(values, parents, level.num_parents, batch))
                for transferred, parents in zip((False, True), level.parents, strict=True)
                if parents
            ]
            values = children[0] if len(children) == 1 else stacked(children)
        return values

    def in_order(self, per_leaf: Tensor) -> Tensor:
        """Reorder a tensor of shape ``(num_leaves, ...)`` from leaves to the configurations' own order."""
        if self.leaves == tuple(range(self.num_leaves)):
            return per_leaf
        return per_leaf[positions(self.leaves, per_leaf.device)]


@lru_cache(maxsize=1024)
def positions(of: tuple[int, ...], device: torch.device) -> Tensor:
    """Make an int64 tensor, once, because a GPU stops working while numbers are copied to it."""
    with torch.inference_mode(False):  # in any mode of the first caller: the next one may need gradients
        return torch.tensor(of, dtype=torch.int64, device=device)


def stacked(values: Sequence[Stack]) -> Stack:
    """Join values along the batch."""
    if isinstance(values[0], tuple):
        return tuple(torch.cat(parts) for parts in zip(*values, strict=True))
    return torch.cat(tuple(values))


def unstacked(values: Stack, num_nodes: int) -> list[Stack]:
    """Split values into those of single nodes, which have as many entries each."""
    if isinstance(values, tuple):
        return list(zip(*(unstacked(part, num_nodes) for part in values), strict=True))
    return list(torch.split(values, len(values) // num_nodes))


def selected(x: Stack, parents: tuple[int, ...], num_parents: int, batch: int) -> Stack:
    """Select the stacked inputs of some parents; without a copy if they are all, or one run of neighbours."""
    if len(parents) == num_parents:
        return x
    if isinstance(x, tuple):
        return tuple(selected(part, parents, num_parents, batch) for part in x)
    if parents == tuple(range(parents[0], parents[0] + len(parents))):
        return x[parents[0] * batch : (parents[-1] + 1) * batch]
    single = torch.split(x, batch)  # and not an index, which would lose the channels' place in memory
    return torch.cat([single[parent] for parent in parents])
