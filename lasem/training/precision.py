"""The precision of the network's arithmetic: 32 bits, or 16 where a device is faster with them.

With ``bf16`` (8 bits of exponent, as float32 has, and 8 of mantissa) convolutions and matrix products read and give
bfloat16. Weights, their gradients, the optimiser, running statistics, losses and likelihoods stay in float32, and what
a search knows in float64 ([Kalamkar2019]_ for the first); ``full_precision`` surrounds what must not be rounded.

.. [Kalamkar2019] D. Kalamkar et al. A Study of BFLOAT16 for Deep Learning Training. arXiv 1905.12322, 2019.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from lasem.errors import DeviceError

Precision = Literal["float32", "bf16"]


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Within it, the network's arithmetic has this precision; with ``float32`` nothing is different from without it."""
    if precision == "float32":
        return nullcontext()
    # no copies of weights are kept: older torch hands one that was made without gradients, as in the E-step, to
    # code that asks with them, as the M-step does (pytorch#165068)
    return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)


def check_precision(precision: Precision, device: torch.device) -> None:
    """Raise DeviceError if the device cannot compute so."""
    if precision == "float32" or _has_bf16(device):
        return
    raise DeviceError(
        f"Expected a device that computes in bf16, which training.precision asks for; '{device}' does not. Set "
        f"training.precision to float32, or choose another device (a CPU can, and NVIDIA GPUs from compute capability "
        f"8.0)."
    )


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.amp.is_autocast_available(device.type))
