"""Encoded images (PNG, JPEG, ...) as uint8 tensors; whatever is wrong becomes a DataError that names the image."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from lasem.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

Channels = Literal[1, 3]

MOST_PIXELS = 64_000_000
"""Larger images are refused from their header alone: a small file can claim a size that fills the memory."""

_ORIENTATION = 0x0112  # the EXIF tag in which a camera says how it was held
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


_WITH_ALPHA, _WITHOUT_ALPHA = ("RGBA", "LA", "PA"), ("1", "L", "P", "RGB")
"""Modes of pixels; in the second ones a file may still name a colour that is transparent."""


def image_size(source: Path | bytes, where: str) -> tuple[int, int]:
    """Read (height, width) from the header of an image, without decoding its pixels.

    Args:
        source: a file, or the bytes of one.
        where: what an error calls the image.

    Raises:
        DataError: if this is no image, or one of more than ``MOST_PIXELS`` pixels.
    """
    with _opened(source, where) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def decode(source: Path | bytes, where: str, *, channels: Channels, size: int | None = None) -> Tensor:
    """Decode an image to uint8 of shape ``(channels, height, width)``, upright.

    All modes are converted to the channels asked for, what is transparent over white; colour profiles are not applied.
    Of 16-bit grey only the upper 8 bits are kept (``value >> 8``), wherever the values lie: of 12-bit X-rays in 16 bits
    that leaves 16 levels. Scale such images to the full range first.

    Args:
        source: a file, or the bytes of one.
        where: what an error calls the image.
        channels: 1 for grey, 3 for red, green, blue.
        size: height and width to resize to (bilinear, whatever the sides were); None keeps the image's own.

    Raises:
        DataError: if the image cannot be decoded, or is larger than ``MOST_PIXELS``.
    """
    from PIL.Image import Resampling, Transpose

    with _opened(source, where) as image:
        orientation = _orientation(image)  # before decoding, so that it is the one of image_size
        upright = _with_channels(image, channels)
        if orientation in _UPRIGHT:
            upright = upright.transpose(Transpose[_UPRIGHT[orientation]])
        if size is not None and upright.size != (size, size):
            upright = upright.resize((size, size), Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(upright))
    return pixels.unsqueeze(0) if channels == 1 else pixels.permute(2, 0, 1).contiguous()


def _orientation(image: Image) -> int:
    from PIL import Image as Images

    if image.format == "TIFF":  # Pillow turns these itself
        return 1
    found = Images.Image.getexif(image).get(_ORIENTATION, 1)  # a PNG's own getexif would decode it first
    return found if found in _UPRIGHT else 1


def _with_channels(image: Image, channels: Channels) -> Image:
    """Convert to 8 bits and the channel count asked for, where Pillow's own conversion would clip or warn first."""
    from PIL import Image as Images

    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, of unknown range")
    if image.mode.startswith("I"):
        grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8
        image = Images.fromarray(grey.astype(np.uint8))
    if image.mode in _WITH_ALPHA or (image.mode in _WITHOUT_ALPHA and "transparency" in image.info):
        layered = image.convert("RGBA")
        if layered.getchannel("A").getextrema() != (255, 255):
            image = Images.alpha_composite(Images.new("RGBA", image.size, "white"), layered)
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    return image.convert("L" if channels == 1 else "RGB")


@contextmanager
def _opened(source: Path | bytes, where: str) -> Iterator[Image]:
    from PIL import Image as Images

    try:
        with Images.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise ValueError(
                    f"it has {width}x{height} pixels, more than the {MOST_PIXELS // 10**6} megapixels allowed"
                )
            yield image
    except FileNotFoundError as error:
        raise DataError(f"Expected an image at {where}, but there is no such file.") from error
    except Exception as error:  # damaged files reach many of Pillow's parsers, each of which raises its own kinds
        raise DataError(
            f"Expected an image that can be decoded, but {where} cannot: {error}. Replace or remove it."
        ) from error
