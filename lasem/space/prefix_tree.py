"""All configurations of a space in one pass.

The output of layer l depends only on the first l choices, so the configurations of a space are the leaves of a binary
tree. It is evaluated level by level: the inputs of a level are stacked along the batch and run once with the shared and
once with the task-specific weights. For all 2^d configurations that is 2^(d+1)-2 layer evaluations instead of d*2^d.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from lasem.space.configuration import Configuration

Branch = Callable[[int, bool, Tensor], Tensor]
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
        nodes: list[tuple[bool, ...]] = [()]
        for depth in range(1, len(configurations[0]) + 1):
            prefixes = {c.bits[:depth] for c in configurations}
            specific = tuple(i for i, node in enumerate(nodes) if (*node, False) in prefixes)
            shared = tuple(i for i, node in enumerate(nodes) if (*node, True) in prefixes)
            levels.append(Level(specific, shared, len(nodes)))
            nodes = [(*nodes[i], False) for i in specific] + [(*nodes[i], True) for i in shared]
        position = {node: i for i, node in enumerate(nodes)}
        return cls(tuple(levels), tuple(position[c.bits] for c in configurations))

    @property
    def num_leaves(self) -> int:
        """Configurations in the tree."""
        return len(self.leaves)

    @property
    def num_nodes(self) -> int:
        """Layer evaluations of one pass."""
        return sum(level.num_nodes for level in self.levels)

    def needs(self, layer: int, *, transferred: bool) -> bool:
        """Whether any configuration transfers the layer (or learns its own)."""
        level = self.levels[layer]
        return bool(level.shared_parents if transferred else level.specific_parents)

    def evaluate(self, x: Tensor, branch: Branch) -> Tensor:
        """Run every configuration on one batch.

        Args:
            x: inputs of the first layer, shape ``(batch, ...)``.
            branch: runs one layer; must treat the entries of its batch independently.

        Returns:
            Outputs of the last layer in the order of the leaves, shape ``(num_leaves * batch, ...)``.
        """
        batch = x.shape[0]
        for layer, level in enumerate(self.levels):
            children = [
                branch(layer, transferred, _select(x, parents, level.num_parents, batch))
                for transferred, parents in ((False, level.specific_parents), (True, level.shared_parents))
                if parents
            ]
            x = children[0] if len(children) == 1 else torch.cat(children)
        return x

    def in_order(self, per_leaf: Tensor) -> Tensor:
        """Reorder a tensor of shape ``(num_leaves, ...)`` from leaves to the configurations' own order."""
        if self.leaves == tuple(range(self.num_leaves)):
            return per_leaf
        return per_leaf[torch.tensor(self.leaves, device=per_leaf.device)]


def _select(x: Tensor, parents: tuple[int, ...], num_parents: int, batch: int) -> Tensor:
    """The stacked inputs of some parents; no copy where all of them, or one run of neighbours, are asked for."""
    if len(parents) == num_parents:
        return x
    if parents == tuple(range(parents[0], parents[0] + len(parents))):
        return x[parents[0] * batch : (parents[-1] + 1) * batch]
    return x.reshape(num_parents, batch, *x.shape[1:])[list(parents)].flatten(0, 1)
