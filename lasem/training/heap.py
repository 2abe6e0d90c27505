"""Memory of the processor that one step frees and the next one wants again: kept by the process meanwhile.

glibc hands large blocks back to the system as soon as they are free, and the system fills every page with zeros before
it lends it again. A step over all configurations of the paper's CIFAR network, with 160 images, so took half a million
new pages: a third of its time.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # malloc.h
_AT_MOST = 2**31 - 1
_MMAP_MAX, _MMAP_THRESHOLD, _TRIM_THRESHOLD = 65536, 2**25, 2**26
"""What glibc starts with, and the most that it goes to by itself while it runs."""

_lock = threading.Lock()
_num_inside = 0


@contextmanager
def kept_heap(device: torch.device) -> Iterator[None]:
    """Within it, what is freed stays with the process; at the end it is handed back.

    It holds for the whole process, may be entered again within itself and by several threads, and changes no result.
    Where memory does not come from glibc, or the device has its own, nothing is different from without it.
    """
    if device.type != "cpu" or not _glibc():
        yield
        return
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _num_inside
    with _lock:
        _num_inside += 1
        if _num_inside == 1:
            _set({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _AT_MOST})


def _leave() -> None:
    global _num_inside
    with _lock:
        _num_inside -= 1
        if _num_inside == 0:
            _set({_M_MMAP_MAX: _MMAP_MAX, _M_MMAP_THRESHOLD: _MMAP_THRESHOLD, _M_TRIM_THRESHOLD: _TRIM_THRESHOLD})
            _glibc()["malloc_trim"](0)


def _set(options: dict[int, int]) -> None:
    for option, value in options.items():
        _glibc()["mallopt"](option, value)


@cache
def _glibc() -> dict[str, Callable[..., int]]:
    """Its functions by name; empty where the C library is another."""
    with suppress(OSError, ValueError, AttributeError):
        if (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"):
            library = ctypes.CDLL(None)
            return {name: getattr(library, name) for name in ("mallopt", "malloc_trim")}
    return {}
