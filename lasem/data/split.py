"""Splits of a task: images, labels, and the standardisation that both training and prediction apply."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, final, get_args

import numpy as np
import torch
from torch import Tensor

from lasem.data.images import AbstractImages, JoinedImages, SelectedImages, TensorImages, in_chunks, moved
from lasem.errors import ConfigError, DataError, ShapeError
from lasem.settings import Settings, check_choice

Standardise = Literal["train", "split", "none"]

_CHUNK_BYTES = 2**24
"""Pixels that are taken at a time."""


@dataclass(frozen=True, kw_only=True)
class StandardiseSettings(Settings):
    """The setting that all readers of images have in common."""

    standardise: Standardise = "train"
    """Whose mean and deviation standardise a task's images: ``train``: all by the training images'; ``split``: each
    split by its own, as in the paper; ``none``: only divided by 255."""


class Part(IntEnum):
    """The splits of a task or of a data set."""

    TRAIN = 0
    VALID = 1
    TEST = 2

    @property
    def word(self) -> str:
        """How messages and the fields of a task call it: train, valid or test."""
        return self.name.lower()


@final
@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels, and the mean and deviation that standardise them."""

    images: AbstractImages
    labels: Tensor
    """int64, shape (N,), from 0 to the number of classes - 1; on the device of the images."""
    mean: Tensor
    """float32, shape (channels,): of pixels / 255 for uint8 images, of the values themselves for float ones."""
    std: Tensor
    """float32, shape (channels,), above 0; in the unit of ``mean``."""

    def __post_init__(self) -> None:
        if self.labels.dtype != torch.int64 or tuple(self.labels.shape) != (len(self.images),):
            raise DataError(
                f"Expected one int64 label for each of the {len(self.images)} images; got labels of shape "
                f"{tuple(self.labels.shape)} and type {self.labels.dtype}."
            )
        channels = (self.images.shape[0],)
        if tuple(self.mean.shape) != channels or tuple(self.std.shape) != channels:
            raise ShapeError(
                f"Expected mean and std of shape {channels}, one number for each channel; got {tuple(self.mean.shape)} "
                f"and {tuple(self.std.shape)}."
            )
        if not (self.mean.isfinite().all() and self.std.isfinite().all() and (self.std > 0).all()):
            raise DataError(
                f"Expected a finite mean and a std above 0 for each channel; got {self.mean.tolist()} and "
                f"{self.std.tolist()}."
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_bytes(self) -> int:
        """What the images and labels take, as they are stored."""
        first = self.images.take(torch.arange(min(1, len(self))))
        return len(self) * (first[0].nbytes + self.labels.element_size()) if len(first) else 0

    def on(self, device: torch.device) -> "Split":
        """Return a copy in the memory of a device, moved there some images at a time."""
        first = self.images.take(torch.arange(1))
        tensor = torch.empty((len(self), *self.images.shape), dtype=first.dtype, device=device)
        start = 0
        for indices in torch.split(torch.arange(len(self)), max(1, _CHUNK_BYTES // first.nbytes)):
            tensor[start : start + len(indices)] = moved(self.images.take(indices), device)
            start += len(indices)
        moments = self.mean.to(device), self.std.to(device)
        return Split(TensorImages.placed(tensor, self.images.scale), self.labels.to(device), *moments)

    def standardised_by(self, mean: Sequence[float], std: Sequence[float]) -> "Split":
        """Return the split with another mean and deviation, of pixels from 0 to 1, where its images' scale is known."""
        scale = self.images.scale
        if scale is None:
            return self
        moments = (torch.tensor(values, device=self.mean.device) * scale for values in (mean, std))
        return Split(self.images, self.labels, *moments)

    def only(self, chosen: Tensor) -> "Split":
        """Return the images where a mask, shape (N,), is true."""
        indices = chosen.nonzero()[:, 0].cpu()
        labels = self.labels[indices.to(self.labels.device)]
        return Split(SelectedImages(self.images, indices), labels, self.mean, self.std)

    def joined(self, other: "Split") -> "Split | None":
        """Return these images and another split's; None if the two are standardised differently."""
        if not (torch.equal(self.mean, other.mean) and torch.equal(self.std, other.std)):
            return None
        labels = torch.cat([self.labels, other.labels.to(self.labels.device)])
        return Split(JoinedImages(self.images, other.images), labels, self.mean, self.std)

    def batches(
        self,
        batch_size: int,
        *,
        device: torch.device | str = "cpu",
        generator: torch.Generator | None = None,
        drop_last: bool = False,
        training: bool = False,
        change: Callable[[Tensor], Tensor] | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate once over the split: standardised float32 images (B, channels, height, width) and labels (B,).

        Args:
            batch_size: images in a batch; the last one may hold fewer.
            device: where the batches are wanted; pixels move there as they are stored, some batches at a time.
            generator: shuffles, by one ``randperm`` drawn when this is called; None keeps the order.
            drop_last: leave out a last batch that is not full.
            training: see ``num_batches``.
            change: called with standardised images of some batches, one call after another; returns what is iterated.

        Raises:
            ConfigError: if ``batch_size`` is below 1, or ``drop_last`` would leave no batch at all.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1; got {batch_size}.")
        if drop_last and len(self) < batch_size:
            raise ConfigError(
                f"batch_size must be at most the {len(self)} images of the split if drop_last is set, for no batch "
                f"would be full; got {batch_size}."
            )
        num = self.num_batches(batch_size, drop_last=drop_last, training=training)
        order = torch.arange(len(self))
        if generator is not None:
            order = torch.randperm(len(self), generator=generator, device=generator.device).cpu()
        total = num * batch_size if drop_last else len(self)
        sizes = [batch_size] * (num - 1) + [total - batch_size * (num - 1)]
        return self._batches(order[:total], sizes, device, change)

    def num_batches(self, batch_size: int, *, drop_last: bool = False, training: bool = False) -> int:
        """Count the batches of ``batches``, the last of which may hold fewer images.

        Args:
            batch_size: images in a batch.
            drop_last: leave out a last batch that is not full.
            training: put a last image that would be alone into the batch before: what layers that normalise by the
                batch make of a single image is nothing, or an error.
        """
        full, rest = divmod(len(self), batch_size)
        alone = training and full > 0 and rest == 1
        return full + (rest > 0 and not drop_last and not alone)

    def _batches(
        self,
        order: Tensor,
        sizes: list[int],
        device: torch.device | str,
        change: Callable[[Tensor], Tensor] | None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        # Many small batches are taken, moved and standardised together: at 10 images a batch the calls cost more than
        # the arithmetic. Every operation is element by element, so this changes no bit.
        batch_bytes = 4 * int(np.prod(self.images.shape)) * sizes[0]
        together = max(1, _CHUNK_BYTES // batch_bytes)
        chunks = [sizes[i : i + together] for i in range(0, len(sizes), together)]
        mean, std = moved(self.mean, device), moved(self.std, device)
        order = moved(order, self.images.device)
        for chunk, within in zip(torch.split(order, [sum(chunk) for chunk in chunks]), chunks, strict=True):
            images = standardise(moved(self.images.take(chunk), device), mean, std)
            images = images if change is None else change(images)
            labels = moved(self.labels[chunk], device)
            yield from zip(torch.split(images, within), torch.split(labels, within), strict=True)


def standardise(images: Tensor, mean: Tensor, std: Tensor, scale: float = 1.0) -> Tensor:
    """Return ``(images - mean) / std`` for each channel as float32; uint8 images are first put on a scale.

    Args:
        images: uint8 or floating, shape (..., channels, height, width).
        mean: shape (channels,).
        std: shape (channels,).
        scale: the value that 255 in uint8 images becomes.

    Raises:
        ShapeError: if the images have another number of channels.
        DataError: if the images are neither uint8 nor floating.
    """
    if images.dim() < 3 or images.shape[-3] != len(mean):
        raise ShapeError(
            f"Expected images of shape (..., {len(mean)}, height, width), as the {len(mean)} channels of the mean; got "
            f"{tuple(images.shape)}."
        )
    if images.dtype == torch.uint8:
        values = images.to(torch.float32).div_(255)
        values = values if scale == 1 else values.mul_(scale)
    elif images.is_floating_point():
        values = images.to(torch.float32)
    else:
        raise DataError(f"Expected images of type uint8 (0 to 255) or a floating type; got {images.dtype}.")
    return (values - mean.to(images.device)[:, None, None]).div_(std.to(images.device)[:, None, None])


def channel_statistics(images: AbstractImages) -> tuple[Tensor, Tensor]:
    """Compute each channel's mean and population deviation, in the units of ``Split``; a constant channel's is 1."""
    channels = images.shape[0]
    counts = np.zeros((channels, 256), dtype=np.int64)
    total, num_values = np.zeros(channels), 0
    for chunk in in_chunks(images):
        values = chunk.transpose(0, 1).flatten(1).numpy()
        num_values += values.shape[1]
        if chunk.dtype == torch.uint8:  # whole numbers are counted: exact, and files are decoded once
            counts += np.stack([np.bincount(channel, minlength=256) for channel in values])
        else:
            total += values.sum(axis=1, dtype=np.float64)
    if num_values == 0:
        raise DataError("Expected at least one image to compute a mean and a deviation from; got none.")
    if counts.any():
        levels = np.arange(256) / 255
        mean = counts @ levels / num_values
        squares = (counts * (levels - mean[:, None]) ** 2).sum(axis=1)
    else:
        mean = total / num_values
        squares = np.zeros(channels)
        for chunk in in_chunks(images):
            values = chunk.transpose(0, 1).flatten(1).numpy().astype(np.float64)
            squares += ((values - mean[:, None]) ** 2).sum(axis=1)
    std = np.sqrt(squares / num_values).astype(np.float32)
    std[std <= 1e-7 * np.abs(mean)] = 1  # constant but for rounding
    return torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(std)


def make_splits(parts: Sequence[tuple[AbstractImages, Tensor]], standardise: Standardise) -> tuple[Split, Split, Split]:
    """Make the three splits of a task.

    Args:
        parts: images and labels to train, to validate and to test with; the last two may be the same object.
        standardise: ``"train"``: all three by the training images' mean and deviation (what a deployed model has);
            ``"split"``: each by its own, as in the paper; ``"none"``: pixels / 255, or float values as they are.
    """
    check_choice("standardise", standardise, get_args(Standardise))
    if standardise == "split":
        moments = [channel_statistics(images) for images, _ in parts]
    elif standardise == "train":
        moments = [channel_statistics(parts[Part.TRAIN][0])] * len(Part)
    else:
        moments = [(torch.zeros(images.shape[0]), torch.ones(images.shape[0])) for images, _ in parts]
    train, valid, test = (Split(*part, *of_part) for part, of_part in zip(parts, moments, strict=True))
    return train, valid, valid if parts[Part.TEST] is parts[Part.VALID] else test


def check_labels(labels: Tensor, num_classes: int, where: str = "") -> None:
    """Raise DataError for a label that is no class's number; ``where`` says in brackets which labels these are."""
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if len(outside):
        raise DataError(
            f"Expected labels from 0 to {num_classes - 1}, one for each of {num_classes} classes{where}; got "
            f"{int(outside[0])}."
        )
