"""How shared knowledge becomes a layer's weights."""

from lasem.sharing.abstract import AbstractSharing
from lasem.sharing.deconvolution import Deconvolution
from lasem.sharing.hard import HardSharing
from lasem.sharing.tensor_factorization import TensorFactorization, tucker_weight

SHARINGS: dict[str, type[AbstractSharing]] = {
    cls.name: cls for cls in (HardSharing, TensorFactorization, Deconvolution)
}
"""The mechanisms that a saved file or a command line can name; in Python, any AbstractSharing can be passed."""

__all__ = ["SHARINGS", "AbstractSharing", "Deconvolution", "HardSharing", "TensorFactorization", "tucker_weight"]
