"""All configurations of a space in one pass.

The output of layer l depends only on the first l choices, so the configurations of a space are the leaves of a binary
tree. It is evaluated level by level: the inputs of a level are stacked along the batch and run once with the shared and
once with the task-specific weights. For all 2^d configurations that is 2^(d+1)-2 layer evaluations instead of d*2^d.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, final

import torch
from torch import Tensor

from lasem.space.configuration import SPECIFIC, TRANSFER, Configuration

Stack = Any
"""What several nodes give, stacked along the batch: a tensor, or a tuple of tensors."""

Branch = Callable[[int, bool, Stack], Stack]
"""``branch(layer, transferred, x)`` runs one layer on a stack of inputs with one kind of weights."""


@final
@dataclass(frozen=True)
class Level:
    """One layer of the tree. Nodes of a level are ordered: all task-specific children, then all transferred ones."""

    specific_parents: tuple[int, ...]
    """Nodes of the level above that continue with task-specific weights."""
    shared_parents: tuple[int, ...]
    """Nodes of the level above that continue with shared weights."""
    num_parents: int

    @property
    def num_nodes(self) -> int:
        """Layer evaluations that this level costs."""
        return len(self.specific_parents) + len(self.shared_parents)


@final
@dataclass(frozen=True)
class PrefixTree:
    """The tree over some configurations of equal depth.

    ``leaves[c]`` is the leaf that holds configuration c, so ``output[leaves]`` restores the order asked for.
    """

    levels: tuple[Level, ...]
    leaves: tuple[int, ...]

    @classmethod
    def of(cls, configurations: Sequence[Configuration]) -> PrefixTree:
        """Build the tree over ``configurations``, which differ from each other and have the same depth."""
        levels: list[Level] = []
        at = [0] * len(configurations)  # the node that each configuration has come to
        num_nodes = 1
        for layer in range(len(configurations[0])):
            taken = {(node, c[layer]) for node, c in zip(at, configurations, strict=True)}
            specific, shared = (tuple(sorted(node for node, bit in taken if bit == kind)) for kind in (False, True))
            levels.append(Level(specific, shared, num_nodes))
            children = [*((node, False) for node in specific), *((node, True) for node in shared)]
            position = {child: i for i, child in enumerate(children)}
            at = [position[node, c[layer]] for node, c in zip(at, configurations, strict=True)]
            num_nodes = len(children)
        return cls(tuple(levels), tuple(at))

    @property
    def num_leaves(self) -> int:
        """Configurations in the tree."""
        return len(self.leaves)

    @property
    def num_nodes(self) -> int:
        """Layer evaluations of one pass."""
        return sum(level.num_nodes for level in self.levels)

    @cached_property
    def prefixes(self) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
        """For each layer the choices that lead to its nodes, such as ``ST``, its own the last, in the stacks' order.

        Those of the task-specific children come first, then those of the transferred ones.
        """
        found = []
        nodes: tuple[str, ...] = ("",)
        for level in self.levels:
            specific = tuple(nodes[parent] + SPECIFIC for parent in level.specific_parents)
            shared = tuple(nodes[parent] + TRANSFER for parent in level.shared_parents)
            found.append((specific, shared))
            nodes = (*specific, *shared)
        return tuple(found)

    def needs(self, layer: int, *, transferred: bool) -> bool:
        """Whether any configuration transfers the layer (or learns its own)."""
        level = self.levels[layer]
        return bool(level.shared_parents if transferred else level.specific_parents)

    def evaluate(self, x: Tensor, branch: Branch) -> Stack:
        """Run every configuration on one batch.

        Args:
            x: inputs of the first layer, shape ``(batch, ...)``.
            branch: runs one layer; must treat the entries of its batch independently, or each node's by themselves.

        Returns:
            Outputs of the last layer in the order of the leaves, shape ``(num_leaves * batch, ...)``.
        """
        batch = x.shape[0]
        values: Stack = x
        for layer, level in enumerate(self.levels):
            children = [
                branch(layer, transferred, _select(values, parents, level.num_parents, batch))
                for transferred, parents in ((False, level.specific_parents), (True, level.shared_parents))
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
    """An int64 tensor of them that is made once, for a GPU stops working while numbers are copied to it."""
    with torch.inference_mode(False):  # whatever the first caller was doing: the next one may need gradients
        return torch.tensor(of, dtype=torch.int64, device=device)


def stacked(values: Sequence[Stack]) -> Stack:
    """Values one behind the other along the batch."""
    if isinstance(values[0], tuple):
        return tuple(torch.cat(parts) for parts in zip(*values, strict=True))
    return torch.cat(tuple(values))


def unstacked(values: Stack, num_nodes: int) -> list[Stack]:
    """The values of single nodes, which have as many entries each."""
    if isinstance(values, tuple):
        return list(zip(*(unstacked(part, num_nodes) for part in values), strict=True))
    return list(torch.split(values, len(values) // num_nodes))


def _select(x: Stack, parents: tuple[int, ...], num_parents: int, batch: int) -> Stack:
    """The stacked inputs of some parents; no copy where all of them, or one run of neighbours, are asked for."""
    if len(parents) == num_parents:
        return x
    if isinstance(x, tuple):
        return tuple(_select(part, parents, num_parents, batch) for part in x)
    if parents == tuple(range(parents[0], parents[0] + len(parents))):
        return x[parents[0] * batch : (parents[-1] + 1) * batch]
    single = torch.split(x, batch)  # and not an index, which would lose the channels' place in memory
    return torch.cat([single[parent] for parent in parents])
