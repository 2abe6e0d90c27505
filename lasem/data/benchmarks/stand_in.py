"""Made-up images of classes that can be told apart, the same every time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CELLS = 4
_CONTRAST, _NOISE = 60, 35


def stand_in_images(num: int, shape: tuple[int, int, int], *, label: int, part: int = 0) -> NDArray[np.uint8]:
    """Make images of one class: its own pattern of patches, brightness and noise of each image.

    Args:
        num: how many.
        shape: channels, height, width.
        label: the class, which decides the pattern.
        part: what else parts images of one class, such as a split or a domain.

    Returns:
        Shape ``(num, *shape)``.
    """
    channels, height, width = shape
    patches = np.random.default_rng([1, label]).normal(128, _CONTRAST, (channels, _CELLS, _CELLS))
    pattern = patches[:, np.arange(height) * _CELLS // height][:, :, np.arange(width) * _CELLS // width]
    generator = np.random.default_rng([2, label, part])
    brightness = generator.normal(0, _NOISE, (num, 1, 1, 1)).astype(np.float32)
    noise = generator.standard_normal((num, *shape), dtype=np.float32) * _NOISE
    return (pattern[None] + brightness + noise).clip(0, 255).astype(np.uint8)
