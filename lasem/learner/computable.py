"""Whether a network that a file describes is of a size that can be computed, before memory is taken for it."""

from __future__ import annotations

import math

from lasem.errors import StorageError
from lasem.nets import AbstractNet

MOST_LAYERS = 10_000
MOST_NUMBERS = 2**29
"""That one image may become between two layers: 2 GiB."""


def check_computable(net: AbstractNet) -> None:
    """Raise StorageError if a network is beyond all measure.

    An image has at most height x width x the widest layer's outputs numbers in between, for no layer enlarges it.
    """
    if net.depth > MOST_LAYERS:
        raise StorageError(f"Expected a network of at most {MOST_LAYERS:,} layers; got {net.depth:,}.")
    words = 0 if net.vocabulary is None else net.vocabulary.size  # a table of words is looked up, not multiplied
    outputs = (shape[0] for block in net.blocks for shape in block.shapes.values() if shape and shape[0] != words)
    channels, height, width = net.image_shape
    count = math.prod((height, width, max(channels, *outputs)))
    if count > MOST_NUMBERS:
        raise StorageError(
            f"Expected a network that makes at most {MOST_NUMBERS:,} numbers of an image of {net.image_shape} "
            f"(channels, height, width); this one makes up to {count:,}."
        )
