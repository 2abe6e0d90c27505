"""Arithmetic that is not rounded where torch computes in fewer bits by itself."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def rounds(device: torch.device) -> bool:
    """Whether torch rounds what it computes there just now (``torch.autocast``)."""
    return bool(torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type))


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Within it, all arithmetic has the precision of what goes into it, also inside of ``torch.autocast``."""
    return torch.autocast(device.type, enabled=False) if rounds(device) else nullcontext()
