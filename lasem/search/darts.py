"""DARTS over what a layer transfers: the choice is relaxed to a mixture whose weights are learned by gradient.

.. [Liu2019] H. Liu, K. Simonyan, Y. Yang. DARTS: Differentiable Architecture Search. ICLR 2019.
.. [Lee2021] S. Lee, S. Behpour, E. Eaton. Sharing Less is More: Lifelong Learning in Deep Networks with Selective Layer
   Transfer. ICML 2021. DARTS is one of the searches that it compares LASEM with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final

from lasem.errors import check_choice, check_range
from lasem.search.grouped import GroupedSelection


@final
@dataclass(frozen=True, kw_only=True)
class DARTS(GroupedSelection):
    """Each layer's output is softmax(alpha)[0] times the task-specific one plus softmax(alpha)[1] times the shared one.

    alpha (two numbers a layer, 0 at the start) and the weights take turns at every mini-batch ([Liu2019]_, Algorithm
    1). The larger entry of alpha chooses; equal ones choose task-specific. As [Lee2021]_ ran it: ``alpha_split="train",
    alpha_optimiser="rmsprop-tf", alpha_learning_rate=None, alpha_weight_decay=0, first_task="search"``.
    """

    name: ClassVar[str] = "darts"

    order: Literal["first", "second"] = "first"
    """What alpha, the two numbers of each layer that mix its branches, follows. ``first``: the gradient at the present
    weights. ``second``: the one at the weights one training step ahead, and through that step ([Liu2019]_, equations 7
    and 8); four more passes a mini-batch."""
    alpha_split: Literal["valid", "train"] = "valid"
    """Images that alpha is fitted to. ``valid``: validation images, which choose the best epoch as well. ``train``: the
    mini-batch that the weights are about to be trained on, which favours whichever branch fits faster."""
    alpha_optimiser: Literal["adam", "rmsprop-tf"] = "adam"
    """``adam`` with betas of .5 and .999 as in [Liu2019]_, or RMSProp as TensorFlow defines it."""
    alpha_learning_rate: float | None = 1e-2
    """Step size of alpha, the same in all epochs; None: the one of the weights, with its schedule. [Liu2019]_ has 3e-4,
    for some 20 000 steps; a task here often has 500, in which Adam moves a number by at most 500 of these."""
    alpha_weight_decay: float = 1e-3
    """L2 penalty on alpha; not negative."""
    xi: float | None = None
    """With ``order`` second: size of the training step that alpha looks ahead; None: the step size of the weights."""
    retrain: bool = False
    """Train the chosen configuration once more from the task's start, with all its epochs: the searched weights are
    fitted to the mixture, of which only one branch a layer is kept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("DARTS.order", self.order, ("first", "second"))
        check_choice("DARTS.alpha_split", self.alpha_split, ("valid", "train"))
        check_choice("DARTS.alpha_optimiser", self.alpha_optimiser, ("adam", "rmsprop-tf"))
        if self.alpha_learning_rate is not None:
            check_range("DARTS.alpha_learning_rate", self.alpha_learning_rate, above=0)
        check_range("DARTS.alpha_weight_decay", self.alpha_weight_decay, least=0)
        if self.xi is not None:
            check_range("DARTS.xi", self.xi, above=0)
