"""Tensor-factorised sharing (TF): tasks share one core per layer, each task owns its factor matrices.

.. [Kolda2009] T. G. Kolda, B. W. Bader. Tensor Decompositions and Applications. SIAM Review 51(3), 2009.
.. [Bulat2020] A. Bulat, J. Kossaifi, G. Tzimiropoulos, M. Pantic. Incremental Multi-domain Learning with Network Latent
   Tensor Factorization. AAAI 2020.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from lasem.errors import ShapeError, check_choice, check_range
from lasem.nets import AbstractBlock, Weights
from lasem.nets.initial import glorot_uniform
from lasem.sharing.abstract import AbstractSharing

_PENALTY_EPSILON = 1e-12
"""Inside the square root: the gradient of the Frobenius norm stays finite where the norm vanishes."""


def tucker_weight(core: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """Build one task's weight from the shared core (Tucker form, [Kolda2009]_ Section 4).

    Args:
        core: shared by all tasks, shape ``(R_1, ..., R_N)``.
        factors: the task's own matrices, the n-th of shape ``(D_n, R_n)``.

    Returns:
        The weight, shape ``(D_1, ..., D_N)``, differentiable in both arguments.

    Raises:
        ShapeError: if there is not one factor for each mode of the core.
    """
    if tuple(f.shape[-1] for f in factors) != tuple(core.shape):
        raise ShapeError(
            f"Expected one factor (D_n, R_n) for each mode of a core of shape {tuple(core.shape)}; "
            f"got factors of shapes {[tuple(f.shape) for f in factors]}."
        )
    weight = core
    for factor in factors:  # contract the first mode, append D_n: after N rounds the order is back
        weight = torch.tensordot(weight, factor, dims=([0], [1]))
    return weight


@final
@dataclass(frozen=True, kw_only=True)
class TensorFactorization(AbstractSharing):
    """W = core x1 U1 x2 U2 ... xN UN; the core is shared, the factors U and the bias are the task's ([Bulat2020]_)."""

    name: ClassVar[str] = "tf"

    penalty_weight: float = 0.1
    """Weight of sum ||U'U - I||_F over the task's factors; not negative."""
    max_rank: int = 256
    """Largest rank of a mode. The paper's layers are below it, so their factors are square; larger ones are cut."""
    start: Literal["identity", "glorot"] = "identity"
    """``identity``: the weight starts as the core itself. ``glorot``: random factors, as the paper has them."""
    factors_start: Literal["fresh", "latest"] = "latest"
    """A new task's factors and bias start as ``start`` says, or from the latest task that transferred the layer."""
    step_scale: float = 1.0
    """Step size of the core, the factors and the bias, relative to plain weights'; positive."""

    def __post_init__(self) -> None:
        check_choice("TensorFactorization.factors_start", self.factors_start, ("fresh", "latest"))
        check_range("TensorFactorization.step_scale", self.step_scale, above=0)
        check_range("TensorFactorization.penalty_weight", self.penalty_weight, least=0)
        check_range("TensorFactorization.max_rank", self.max_rank, least=1)
        check_choice("TensorFactorization.start", self.start, ("identity", "glorot"))

    def shared_shapes(self, block: AbstractBlock) -> dict[str, tuple[int, ...]]:
        """``core`` of shape (R_1, ..., R_N)."""
        return {"core": tuple(min(size, self.max_rank) for size in block.shapes["weight"])}

    def task_shapes(self, block: AbstractBlock) -> dict[str, tuple[int, ...]]:
        """``factor.n`` of shape (D_n, R_n), and every weight of the layer but the kernel."""
        sizes = block.shapes["weight"]
        factors = {f"factor.{n}": (size, min(size, self.max_rank)) for n, size in enumerate(sizes)}
        return factors | {name: shape for name, shape in block.shapes.items() if name != "weight"}

    def initial_shared(self, block: AbstractBlock, plain: Weights, generator: torch.Generator) -> dict[str, Tensor]:
        """A plain kernel cut to the core's ranks and scaled to the inputs left, or Glorot's for random factors."""
        shape = self.shared_shapes(block)["core"]
        if self.start == "glorot":
            receptive = torch.Size(shape[2:]).numel()
            return {"core": glorot_uniform(shape, shape[1] * receptive, shape[0] * receptive, generator)}
        whole = block.shapes["weight"]
        core = plain["weight"][tuple(slice(rank) for rank in shape)]
        return {"core": core * math.sqrt(math.prod(whole[1:]) / math.prod(shape[1:]))}

    def initial_task(
        self, block: AbstractBlock, shared: Weights, plain: Weights, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Identity or random factors; the rest as in a plain layer."""
        own = {name: value for name, value in plain.items() if name != "weight"}
        for name, shape in self.task_shapes(block).items():
            if name.startswith("factor."):
                random = self.start == "glorot"
                own[name] = glorot_uniform(shape, shape[1], shape[0], generator) if random else torch.eye(*shape)
        return own

    def weights(self, block: AbstractBlock, shared: Weights, task: Weights) -> dict[str, Tensor]:
        """The Tucker form, and the task's own bias."""
        factors = [task[f"factor.{n}"] for n in range(shared["core"].ndim)]
        own = {name: value for name, value in task.items() if not name.startswith("factor.")}
        return {"weight": tucker_weight(shared["core"], factors), **own}

    def penalty(self, block: AbstractBlock, task: Weights) -> Tensor | None:
        """penalty_weight * sum over factors of ||U'U - I||_F (the norm itself, not its square)."""
        if self.penalty_weight == 0:
            return None
        norms = []
        for factor in (task[name] for name in sorted(task) if name.startswith("factor.")):  # a file has no order
            gram = factor.T @ factor
            gap = gram - torch.eye(gram.shape[0], dtype=gram.dtype, device=gram.device)
            norms.append((gap.square().sum() + _PENALTY_EPSILON).sqrt())
        return self.penalty_weight * torch.stack(norms).sum()
