"""Sharing mechanisms, which turn shared knowledge into a layer's weights."""

from lasem.sharing.abstract import AbstractKernelSharing, AbstractSharing, Kernel
from lasem.sharing.deconvolution import Deconvolution
from lasem.sharing.hard import HardSharing
from lasem.sharing.low_rank import LowRank
from lasem.sharing.tensor_factorization import TensorFactorization, tucker_weight

SHARINGS: dict[str, type[AbstractSharing]] = {
    cls.name: cls for cls in (HardSharing, TensorFactorization, Deconvolution, LowRank)
}
"""The mechanisms that a saved file or a command line can name; in Python, any AbstractSharing can be passed."""

__all__ = [
    "SHARINGS",
    "AbstractKernelSharing",
    "AbstractSharing",
    "Deconvolution",
    "HardSharing",
    "Kernel",
    "LowRank",
    "TensorFactorization",
    "tucker_weight",
]
