"""Equally large images in memory, or in files that are decoded when they are needed."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar, final

import numpy as np
import torch
from torch import Tensor

from lasem.data.decode import Channels, DamagedError, Resize, decode, image_size
from lasem.errors import ConfigError, DataError

Scale = float | Literal["auto", "none"]
"""The value of white in images, whose black is 0. ``auto``: 255 in uint8 images (1, 15 or 16 if the training images go
to it), in floats as the training images show it; ``none``: the values are no brightness, so that an image file cannot
be turned into such."""

_WHITES = (15, 16, 31, 63, 100, 127, 511, 1023, 2047, 4095, 8191, 16383, 32767, 65535)
"""Largest values that images of few or many bits have; scikit-learn's digits go to 16."""

_FEW_BITS = (1, 15, 16)
"""The same in uint8 images: seldom the brightest pixel of dark ones."""

_LOOKED_AT = 8
"""Images that say whether all are grey."""

_AT_ONCE = 1024
"""Files that wait to be read by threads."""

Item = TypeVar("Item")


class AbstractImages(ABC):
    """Equally large images that can be taken by their indices."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    def device(self) -> torch.device:
        """The device on which ``take`` returns images."""
        return torch.device("cpu")

    @property
    def in_files(self) -> bool:
        """Whether images are decoded whenever they are taken, so that damage is found no earlier."""
        return False

    @property
    def scale(self) -> float | None:
        """The value of white where black is 0, once uint8 is divided by 255; None: not known, or there is none."""
        return 1.0

    @property
    def texts(self) -> tuple[str, ...] | None:
        """The texts, if these are ``Texts``, which no tokenizer has read; None: they are images, or token ids."""
        return None

    @cached_property  # training asks in every epoch
    def some_in_colour(self) -> bool:
        """Whether any of a few images has channels that differ."""
        some = self.take(torch.linspace(0, len(self) - 1, min(_LOOKED_AT, len(self))).long())
        return bool((some != some[:, :1]).any())

    @abstractmethod
    def take(self, indices: Tensor) -> Tensor:
        """Return the images at ``indices``, int64 of shape (B,): uint8 or float32, (B, channels, height, width)."""


@final
class TensorImages(AbstractImages):
    """Images in memory: ``tensor`` (N, channels, height, width), uint8 or float32, is kept and not copied.

    Args:
        images: the tensor.
        scale: of floats, see ``Scale``; uint8 images are from 0 to 255.
    """

    def __init__(self, images: Tensor, scale: Scale = "auto") -> None:
        if images.dim() != 4 or 0 in images.shape[1:]:
            raise DataError(f"Expected images of shape (N, channels, height, width); got {tuple(images.shape)}.")
        if images.dtype not in (torch.uint8, torch.float32):
            raise DataError(
                f"Expected images of type uint8 (0 to 255) or float32; got {images.dtype}. Convert them first."
            )
        if images.is_floating_point():
            finite = images.isfinite().flatten(1).all(dim=1)
            if not finite.all():
                raise DataError(
                    f"Expected finite pixel values; image {int(finite.int().argmin())} of {len(images)} holds NaN or "
                    f"infinity ({int((~finite).sum())} images do). Repair or leave out these images."
                )
        self.tensor = images.detach().cpu()
        self._scale = None if isinstance(scale, str) else float(scale)
        if scale == "auto":
            self._scale = 1.0 if images.dtype == torch.uint8 else _found_scale(*_extremes(self.tensor))

    @property
    def scale(self) -> float | None:
        return self._scale

    @classmethod
    def placed(cls, tensor: Tensor, scale: float | None = 1.0) -> "TensorImages":
        """Return images that were checked before, and stay on the device that they are on."""
        images = cls.__new__(cls)
        images.tensor, images._scale = tensor, scale
        return images

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.tensor.shape[1:]
        return channels, height, width

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def __len__(self) -> int:
        return len(self.tensor)

    def take(self, indices: Tensor) -> Tensor:
        return self.tensor[moved(indices, self.device)]


@final
class FileImages(AbstractImages):
    """Images in files, decoded whenever they are taken, so that they need not fit into memory.

    Every header is read at once: a missing file, one that is no image, or one of another size is found here. Damage
    after the header is found when the image is taken.

    Args:
        paths: the files.
        channels: 1 converts to grey, 3 to colour.
        size: what every image is resized to, as in ``decode``; None expects all to be equally large.
        keep: what must live as long as the files are needed, such as a temporary folder.
        names: what messages call the files; None: as they are.

    Raises:
        DamagedError: if images cannot be decoded; it names all of them.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        *,
        channels: Channels = 3,
        size: int | Resize | None = None,
        keep: object = None,
        names: Sequence[str] | None = None,
    ) -> None:
        if not paths:
            raise DataError("Expected at least one image file; got none.")
        self._paths = [str(path) for path in paths]
        self._names = self._paths if names is None else names
        self._channels: Channels = channels
        self._size = size
        self._keep = keep
        sizes = list(self._each(range(len(paths)), lambda path, name: image_size(Path(path), name)))
        side = size.side if isinstance(size, Resize) else size
        self._shape = (channels, *(sizes[0] if side is None else (side, side)))
        if size is None:
            for name, found in zip(self._names, sizes, strict=True):
                self._check_equal(name, found)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self._shape

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def in_files(self) -> bool:
        return True

    def take(self, indices: Tensor) -> Tensor:
        images = torch.empty(len(indices), *self._shape, dtype=torch.uint8)

        def decoded(path: str, name: str) -> Tensor:
            image = decode(Path(path), name, channels=self._channels, size=self._size)
            self._check_equal(name, (image.shape[1], image.shape[2]))
            return image

        for place, image in enumerate(self._each(indices.tolist(), decoded)):
            images[place] = image
        return images

    def _each(self, indices: Sequence[int], read: Callable[[str, str], Item]) -> Iterator[Item]:
        """Read some files, in as many threads as torch has; of damaged ones, name all."""

        def tried(index: int) -> Item | DamagedError:
            try:
                return read(self._paths[index], self._names[index])
            except DamagedError as error:
                return error

        damaged: dict[int, tuple[str, str]] = {}
        with ThreadPoolExecutor(torch.get_num_threads(), "lasem-decode") as pool:
            for part in (indices[k : k + _AT_ONCE] for k in range(0, len(indices), _AT_ONCE)):
                for index, found in zip(part, pool.map(tried, part), strict=True):
                    if isinstance(found, DamagedError):
                        damaged[index] = found.reasons[0]
                    elif not damaged:
                        yield found
        if damaged:
            raise DamagedError(damaged)

    def in_memory(self) -> TensorImages:
        """Decode all of them."""
        return TensorImages(self.take(torch.arange(len(self))))

    def _check_equal(self, name: str, size: tuple[int, int]) -> None:
        height, width = self._shape[1:]
        if size != (height, width):
            raise DataError(
                f"Expected all images to be as large as {self._names[0]}, {height}x{width} (height x width); {name} is "
                f"{size[0]}x{size[1]}. Set image_size to resize all."
            )


@final
class SelectedImages(AbstractImages):
    """Some images of others, in the order of ``indices``, without a copy of their pixels."""

    def __init__(self, images: AbstractImages, indices: Tensor) -> None:
        self._images = images
        self._indices = indices

    @property
    def shape(self) -> tuple[int, int, int]:
        return self._images.shape

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def in_files(self) -> bool:
        return self._images.in_files

    @property
    def scale(self) -> float | None:
        return self._images.scale

    @property
    def texts(self) -> tuple[str, ...] | None:
        texts = self._images.texts
        return None if texts is None else tuple(texts[index] for index in self._indices.tolist())

    def take(self, indices: Tensor) -> Tensor:
        return self._images.take(self._indices[indices])


@final
class JoinedImages(AbstractImages):
    """Images of two places on one scale, the second one's after the first one's, without a copy of their pixels."""

    def __init__(self, first: AbstractImages, second: AbstractImages) -> None:
        self._first, self._second = first, second

    @property
    def shape(self) -> tuple[int, int, int]:
        return self._first.shape

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    @property
    def in_files(self) -> bool:
        return self._first.in_files or self._second.in_files

    @property
    def scale(self) -> float | None:
        return self._first.scale

    def take(self, indices: Tensor) -> Tensor:
        indices, num = indices.cpu(), len(self._first)
        early = indices < num
        if bool(early.all()) or not bool(early.any()):
            return self._first.take(indices) if bool(early.all()) else self._second.take(indices - num)
        first, second = self._first.take(indices[early]), self._second.take(indices[~early] - num)
        taken = first.new_empty((len(indices), *first.shape[1:]))
        taken[early.to(taken.device)], taken[~early.to(taken.device)] = first, second.to(first)
        return taken


def moved(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return the tensor on a device; on the way from a CPU to a GPU neither of the two waits.

    A GPU copies by itself only what is in pinned memory: for anything else both stop until the copy is done.
    """
    device = torch.device(device)
    if tensor.device.type == "cpu" and device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def in_chunks(images: AbstractImages, most_bytes: int = 2**24) -> Iterator[Tensor]:
    """Take all images in order, some at a time: at least one, at most ``most_bytes`` as float32."""
    step = max(1, most_bytes // (4 * int(np.prod(images.shape))))
    for indices in torch.split(torch.arange(len(images)), step):
        yield images.take(indices)


def as_images(images: Any, what: str = "images") -> TensorImages:
    """Make TensorImages of (N, C, H, W), or (N, H, W) for grey, uint8 or floating; DataError for anything else."""
    tensor = _as_tensor(images, what)
    if tensor.dim() == 3:
        tensor = tensor.unsqueeze(1)
    if tensor.dim() == 4 and tensor.shape[1] > 4 and tensor.shape[3] in (1, 3, 4):
        raise DataError(
            f"Expected {what} of shape (N, channels, height, width); got {tuple(tensor.shape)}, which looks like "
            "channels last. Pass images.permute(0, 3, 1, 2), or transpose(0, 3, 1, 2) of an array."
        )
    return TensorImages(tensor.to(torch.float32) if tensor.is_floating_point() else tensor)


def on_one_scale(splits: Sequence[TensorImages], places: Sequence[str], scale: Scale = "auto") -> list[TensorImages]:
    """Return the images of a task's splits with their scale, which is that of the first, the training images.

    Uint8 images stay what they are unless their scale is another than 255. DataError if another split has another scale
    or type, or values that do not fit the scale that is given; ConfigError if that is not positive.
    """
    if isinstance(scale, str) and scale not in ("auto", "none"):
        raise ConfigError(f"scale must be a number, 'auto' or 'none'; got '{scale}'.")
    if not isinstance(scale, str) and not (isinstance(scale, int | float) and 0 < scale < float("inf")):
        raise ConfigError(f"scale must be above 0 and finite, the value of white in the images; got {scale}.")
    kinds = [images.tensor.dtype for images in splits]
    if scale == "auto" and splits[0].shape[:2] == (1, 1) and torch.uint8 not in kinds:
        scale = "none"  # texts or signals
    ranges = [_extremes(images.tensor) for images in splits]
    whole = all(kind == torch.uint8 for kind in kinds)
    words = [str(kind).removeprefix("torch.") for kind in kinds]
    said = [f"{word} from {low:g} to {high:g}" for word, (low, high) in zip(words, ranges, strict=True)]
    for place, kind, (low, high), here in zip(places, kinds, ranges, said, strict=True):
        if not isinstance(scale, str) and not -0.1 * scale <= low <= high <= 1.1 * scale:
            raise DataError(f"Expected images from 0 to {scale:g}, as scale says; got {here} ({place}).")
        if scale == "auto" and (kind != kinds[0] or _differ(ranges[0], (low, high), whole)):
            raise DataError(
                f"Expected the images of all splits on one scale; got {said[0]} ({places[0]}), and {here} ({place}). "
                f"Convert one of them; or, if they are on one scale, say which value is white, for instance scale=255."
            )
    if scale == "auto":
        scale = _found_scale(*ranges[0], whole) or "none"
    if whole and scale == 255:
        return list(splits)
    return [TensorImages(images.tensor.to(torch.float32), scale) for images in splits]


def _extremes(values: Tensor) -> tuple[float, float]:
    """The least and the greatest value; 0 and 0 if there is none."""
    low, high = torch.aminmax(values) if values.numel() else (0, 0)
    return float(low), float(high)


def _found_scale(low: float, high: float, whole: bool = False) -> float | None:
    """The scale of floats, or if ``whole`` of uint8, by the least and greatest value; None if these do not tell it."""
    if low < 0:
        return None
    if whole:
        return high if high in _FEW_BITS else 255.0
    if high <= 1 or 128 <= high <= 255:
        return 1.0 if high <= 1 else 255.0
    return high if high in _WHITES else None


def _differ(first: tuple[float, float], other: tuple[float, float], whole: bool) -> bool:
    """Whether values are on another scale: ten times as large or small, or below 0 in one of the two only.

    Or if both seem to be on a scale, and it is not one; or if the first are, and the others go above it.
    """
    scale, of_other = _found_scale(*first, whole), _found_scale(*other, whole)
    if scale and (other[1] > 1.1 * scale or (other[1] > 1 and of_other not in (None, scale))):
        return True
    sizes = [max(abs(low), abs(high)) for low, high in (first, other)]
    below = [low < -0.1 * size for (low, _), size in zip((first, other), sizes, strict=True)]
    return min(sizes) > 0 and (max(sizes) > 10 * min(sizes) or below[0] != below[1])


def as_labels(labels: Any, what: str = "labels") -> Tensor:
    """Make an int64 tensor (N,) of a tensor, array or sequence of integers; DataError for anything else."""
    tensor = _as_tensor(labels, what)
    if tensor.dim() != 1:
        raise DataError(f"Expected one label for each image, {what} of shape (N,); got {tuple(tensor.shape)}.")
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise DataError(f"Expected {what} to be integers, one class number for each image; got {tensor.dtype}.")
    return tensor.detach().cpu().to(torch.int64)


def _as_tensor(values: Any, what: str) -> Tensor:
    if isinstance(values, Tensor):
        return values
    try:
        return torch.from_numpy(np.array(values))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"Expected {what} to be a tensor or an array of numbers; got {type(values).__name__}."
        ) from error
