"""What a run was made with: versions, machine, command line. No results depend on this file."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy
import torch

_SAME = ("python", "torch", "numpy", "lasem", "platform", "device_name", "threads")


def describe(device: torch.device, command: Sequence[str], num_tasks: int | None) -> dict[str, Any]:
    """Plain values for ``environment.json``; paths are only those that a person typed in ``command``."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "command": list(command),
        "num_tasks": num_tasks,
        "lasem": version("lasem"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "device_name": name,
    }


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What may change the last bits of a run that goes on, in words; empty if nothing may."""
    return [f"{key} was {before.get(key)} and is {now[key]}" for key in _SAME if before.get(key) != now[key]]
