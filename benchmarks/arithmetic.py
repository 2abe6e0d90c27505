"""What a step must cost at least: multiplications, and numbers that have to be stored for the backward pass."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

from lasem.nets import ConvBlock, Net
from lasem.space import Configuration, PrefixTree, full


def conv_sizes(net: Net) -> list[tuple[ConvBlock, int, int]]:
    """Each convolution with the height and width that it gives before pooling."""
    _, height, width = net.image_shape
    sizes = []
    for block in net.blocks:
        assert isinstance(block, ConvBlock)
        rows, columns = (math.ceil(side / block.stride) for side in (height, width))
        sizes.append((block, rows, columns))
        height, width = block.output_size(height), block.output_size(width)
    return sizes


def arithmetic_floor(net: Net, num_classes: int, configurations: Iterable[Configuration] | None = None) -> float:
    """Multiplications of a prefix tree over those of one network; the E-step's second head is not counted.

    Args:
        net: convolutions and a head.
        num_classes: of the task.
        configurations: the tree's leaves; all if not given.
    """
    layers = [math.prod(block.shapes["weight"]) * rows * columns for block, rows, columns in conv_sizes(net)]
    head = sum(a * b for a, b in pairwise((net.head.in_features, *net.head.hidden, num_classes)))
    tree = PrefixTree.of(tuple(full(net.depth) if configurations is None else configurations))
    total = sum(level.num_nodes * cost for level, cost in zip(tree.levels, layers, strict=True))
    return (total + tree.num_leaves * head) / (sum(layers) + head)


def leaf_activation_bytes(net: Net, batch: int, num_leaves: int | None = None) -> int:
    """Bytes of what every layer of every configuration gives, in float32; of all 2^d configurations if not said."""
    return 4 * batch * sum(_given(net)) * (2**net.depth if num_leaves is None else num_leaves)


def node_activation_bytes(net: Net, batch: int, configurations: Iterable[Configuration]) -> int:
    """Bytes of what every node of a prefix tree gives, which the backward pass needs; in float32."""
    tree = PrefixTree.of(tuple(configurations))
    return 4 * batch * sum(level.num_nodes * num for level, num in zip(tree.levels, _given(net), strict=True))


def _given(net: Net) -> list[int]:
    """Numbers that each layer gives for an image: after ReLU, and after pooling where there is any."""
    numbers = []
    for block, rows, columns in conv_sizes(net):
        pooled = math.ceil(rows / block.pool) * math.ceil(columns / block.pool) if block.pool > 1 else 0
        numbers.append(block.out_channels * (rows * columns + pooled))
    return numbers
