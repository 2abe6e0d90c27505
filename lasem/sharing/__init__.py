"""Sharing mechanisms, which turn shared knowledge into a layer's weights."""

from lasem.sharing.abstract import AbstractKernelSharing as AbstractKernelSharing
from lasem.sharing.abstract import AbstractSharing as AbstractSharing
from lasem.sharing.abstract import Kernel as Kernel
from lasem.sharing.deconvolution import Deconvolution as Deconvolution
from lasem.sharing.hard import HardSharing as HardSharing
from lasem.sharing.low_rank import LowRank as LowRank
from lasem.sharing.tensor_factorization import TensorFactorization as TensorFactorization
from lasem.sharing.tensor_factorization import tucker_weight as tucker_weight

SHARINGS: dict[str, type[AbstractSharing]] = {
    cls.name: cls for cls in (HardSharing, TensorFactorization, Deconvolution, LowRank)
}
"""The mechanisms that a saved file or a command line can name; in Python, any AbstractSharing can be passed."""
