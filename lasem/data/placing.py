"""Images in the memory of the device that learns a task, moved there once and not in every epoch."""

from __future__ import annotations

from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from lasem.data.images import AbstractImages, moved
from lasem.data.split import Split
from lasem.data.task import Task

_CHUNK_BYTES = 2**24
"""Pixels that are moved at a time."""


@final
class PlacedImages(AbstractImages):
    """Images in the memory of a device: ``tensor`` (N, channels, height, width), uint8 or float32."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

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
        return self.tensor.index_select(0, moved(indices, self.device))


def task_on(task: Task, device: torch.device, share: float) -> Task:
    """Return the task with its training and validation images on the device, as far as they fit there.

    Pixels stay as they are stored, uint8 as uint8, and are standardised in every epoch as before, so that no result
    changes. The memory is the returned task's: it is free again when that is gone. On a CPU, and where it is not known
    what is free, it is the task itself.

    Args:
        task: as it was read.
        device: where it is learned.
        share: of the device's free memory that images may take, in [0, 1].
    """
    free = free_bytes(device)
    if free is None:
        return task
    left = share * free
    on_device: dict[int, Split] = {}  # two splits of a task may be one object
    for split in (task.train, task.valid):
        size = num_bytes(split)
        if id(split) not in on_device and size <= left:
            on_device[id(split)] = _placed(split, device)
            left -= size
    train, valid, test = (on_device.get(id(split), split) for split in (task.train, task.valid, task.test))
    return replace(task, train=train, valid=valid, test=test) if on_device else task


def free_bytes(device: torch.device) -> int | None:
    """Return the memory that tensors may still take on a GPU; None for a CPU, which holds images already."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    # what torch has taken from the device and does not use at present
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def num_bytes(split: Split) -> int:
    """Return what the images and labels of a split take, as they are stored."""
    first = split.images.take(torch.arange(min(1, len(split))))
    return len(split) * (first[0].nbytes + split.labels.element_size()) if len(first) else 0


def _placed(split: Split, device: torch.device) -> Split:
    """Copy a split to the device."""
    first = split.images.take(torch.arange(1))
    tensor = torch.empty((len(split), *split.images.shape), dtype=first.dtype, device=device)
    step = max(1, _CHUNK_BYTES // first.nbytes)
    for start, indices in zip(range(0, len(split), step), torch.split(torch.arange(len(split)), step), strict=True):
        tensor[start : start + len(indices)] = moved(split.images.take(indices), device)
    return Split(PlacedImages(tensor), split.labels.to(device), split.mean.to(device), split.std.to(device))
