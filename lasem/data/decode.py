"""Encoded images (PNG, JPEG, ...) as uint8 tensors; whatever is wrong becomes a DataError that names the image."""

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, final

import numpy as np
import torch
from torch import Tensor

from lasem.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

Channels = Literal[1, 3]
Interpolation = Literal["bilinear", "bicubic", "lanczos", "nearest"]

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "QOI", "SGI", "TIFF", "WEBP")
"""Formats that are decoded, whatever a file is called: none that runs a program (EPS), none whose header may hide an
image of other sides (ICO, ICNS)."""

MOST_PIXELS = 64_000_000
"""Larger images are refused from their header alone: a small file can claim a size that fills the memory."""

_ORIENTATION = 0x0112  # the EXIF tag in which a camera says how it was held
_UPRIGHT = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")
"""What makes an image upright, from orientation 2 to 8."""

_WITH_ALPHA, _WITHOUT_ALPHA = ("RGBA", "LA", "PA"), ("1", "L", "P", "RGB")
"""Modes of pixels; in the second ones a file may still name a colour that is transparent."""


@final
@dataclass(frozen=True, kw_only=True)
class Resize:
    """How an image becomes a square."""

    side: int
    """Height and width that it gets."""
    crop: float | None = None
    """Share of its shorter side that a square in the middle has, which alone is used; None: all of it, stretched."""
    interpolation: Interpolation = "bilinear"


@final
class DamagedError(DataError):
    """Images that cannot be decoded."""

    def __init__(self, reasons: Mapping[int, tuple[str, str]], *, may_skip: bool = True) -> None:
        """Name them all: ``reasons`` has what an error calls each image, and why, by its position among others."""
        self.reasons = reasons
        if len(reasons) == 1:
            where, reason = next(iter(reasons.values()))
            message = f"Expected an image that can be decoded, but {where} cannot: {reason}. Replace or remove it"
        else:
            listed = "; ".join(f"{where} ({reason})" for where, reason in reasons.values())
            message = (
                f"Expected images that can be decoded, but {len(reasons)} cannot: {listed}. Replace or remove them"
            )
        super().__init__(f"{message}{', or leave out what is damaged (--skip-damaged)' if may_skip else ''}.")


@cache
def suffixes() -> frozenset[str]:
    """Endings of the names of image files, in small letters."""
    from PIL import Image as Images

    _formats()  # which registers endings
    return frozenset(suffix for suffix, kind in Images.registered_extensions().items() if kind in FORMATS)


@cache
def _formats() -> tuple[str, ...]:
    """The formats that the Pillow at hand can decode."""
    from PIL import Image as Images

    Images.init()
    return tuple(kind for kind in FORMATS if kind in Images.OPEN)


def image_size(source: Path | bytes, where: str) -> tuple[int, int]:
    """Read (height, width) from an image's header, without decoding pixels; arguments and errors as in ``decode``."""
    with _opened(source, where) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def decode(source: Path | bytes, where: str, *, channels: Channels, size: int | Resize | None = None) -> Tensor:
    """Decode an image to uint8 of shape ``(channels, height, width)``, upright.

    All modes are converted to the channels asked for, what is transparent over white; colour profiles are not applied.
    Of 16-bit grey only the upper 8 bits are kept (``value >> 8``), wherever the values lie: of 12-bit X-rays in 16 bits
    that leaves 16 levels. Scale such images to the full range first.

    Args:
        source: a file, or the bytes of one.
        where: what an error calls the image.
        channels: 1 for grey, 3 for red, green, blue.
        size: what to resize to, a number for both sides (bilinear, whatever they were); None keeps the image's own.

    Raises:
        DataError: if the image cannot be decoded, or is larger than ``MOST_PIXELS``.
    """
    from PIL.Image import Transpose

    with _opened(source, where) as image:
        orientation = _orientation(image)  # before decoding, so that it is the one of image_size
        if image.format in ("JPEG", "MPO"):
            image = _whole(image, source)
        upright = _with_channels(image, channels)
        if orientation > 1:
            upright = upright.transpose(Transpose[_UPRIGHT[orientation - 2]])
        if size is not None:
            upright = _resized(upright, Resize(side=size) if isinstance(size, int) else size)
        pixels = torch.from_numpy(np.array(upright))
    return pixels.unsqueeze(0) if channels == 1 else pixels.permute(2, 0, 1).contiguous()


def _resized(image: "Image", how: Resize) -> "Image":
    from PIL.Image import Resampling

    width, height = image.size
    box = (0.0, 0.0, float(width), float(height))
    if how.crop is not None:
        kept = how.crop * min(width, height)
        box = ((width - kept) / 2, (height - kept) / 2, (width + kept) / 2, (height + kept) / 2)
    if image.size == (how.side, how.side) and box[0] == 0:
        return image
    return image.resize((how.side, how.side), Resampling[how.interpolation.upper()], box)


def _orientation(image: "Image") -> int:
    from PIL import Image as Images

    if image.format == "TIFF":  # Pillow turns these itself
        return 1
    found = Images.Image.getexif(image).get(_ORIENTATION, 1)  # a PNG's own getexif would decode it first
    return int(found) if found in range(2, 9) else 1


def _with_channels(image: "Image", channels: Channels) -> "Image":
    """Convert to 8 bits and the channel count asked for, where Pillow's own conversion would clip or warn first."""
    from PIL import Image as Images

    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, of unknown range")
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError(f"its pixels go from {grey.min():,} to {grey.max():,}, not from 0 to 65,535")
        image = Images.fromarray((grey >> 8).astype(np.uint8))
    if image.mode in _WITH_ALPHA or (image.mode in _WITHOUT_ALPHA and "transparency" in image.info):
        layered = image.convert("RGBA")
        if layered.getchannel("A").getextrema() != (255, 255):
            image = Images.alpha_composite(Images.new("RGBA", image.size, "white"), layered)
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    return image.convert("L" if channels == 1 else "RGB")


@contextmanager
def _opened(source: Path | bytes, where: str) -> "Iterator[Image]":
    from PIL import Image as Images
    from PIL import UnidentifiedImageError

    try:
        if isinstance(source, Path) and source.exists() and not source.is_file():
            raise ValueError("it is a folder, a pipe or a device")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Images.DecompressionBombWarning)  # an error here, from fewer pixels on
            opened = Images.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_formats())
        with opened as image:
            tags = getattr(image, "tag_v2", {})  # a TIFF's tiles may be larger than the image, and are decoded whole
            width, height = max(image.size[0], tags.get(322, 0)), max(image.size[1], tags.get(323, 0))
            if width * height > MOST_PIXELS:
                raise ValueError(
                    f"it has {width}x{height} pixels, more than the {MOST_PIXELS // 10**6} megapixels allowed"
                )
            yield image
    except FileNotFoundError as error:
        raise DataError(f"Expected an image at {where}, but there is no such file.") from error
    except Exception as error:  # damaged files reach many of Pillow's parsers, each of which raises its own kinds
        reason = f"it is none of {', '.join(_formats())}" if isinstance(error, UnidentifiedImageError) else error
        raise DamagedError({0: (where, " ".join(str(reason).split()))}, may_skip=False) from error


def _whole(image: "Image", source: Path | bytes) -> "Image":
    """Decode the pixels of a JPEG; one that lacks its end mark is given it."""
    from PIL import Image as Images

    try:
        image.load()
    except OSError:
        completed = _completed(source)
        if completed is None:
            raise
        image = Images.open(io.BytesIO(completed), formats=["JPEG"])
    return image


def _completed(source: Path | bytes) -> bytes | None:
    """Return a JPEG with the end mark that it lacks; None for anything else, also if pixels are missing.

    Bytes before the end mark change nothing only if all pixels are there: else they are taken for pixels.
    """
    from PIL import Image as Images

    data = (source if isinstance(source, bytes) else source.read_bytes()).removesuffix(b"\xff")
    scan = data.rfind(b"\xff\xda")
    if not data.startswith(b"\xff\xd8\xff") or len(data) < scan + 10:
        return None
    last, bits = (*data[scan + 6 + 2 * data[scan + 4] :][:2], 0, 0)[:2]
    if last != 63 or bits % 16:  # a progressive one, of which later scans are missing
        return None
    ways = [data + filler + b"\xff\xd9" for filler in (b"", b"\x55" * 64, b"\xc3\x1e" * 32)]
    first, *others = [Images.open(io.BytesIO(way), formats=["JPEG"]).tobytes() for way in ways]
    return ways[0] if all(other == first for other in others) else None
