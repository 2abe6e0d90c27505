"""Tensor-factorised sharing (TF): one core per layer that tasks share, and factor matrices that each task owns.

.. [Kolda2009] T. G. Kolda, B. W. Bader. Tensor Decompositions and Applications. SIAM Review 51(3), 2009.
.. [Bulat2020] A. Bulat, J. Kossaifi, G. Tzimiropoulos, M. Pantic. Incremental Multi-domain Learning with Network Latent
   Tensor Factorization. AAAI 2020.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, final

import torch
from torch import Tensor

from lasem.errors import ShapeError
from lasem.nets import Weights
from lasem.nets.block import glorot_uniform
from lasem.settings import Range
from lasem.sharing.abstract import AbstractKernelSharing, Kernel

_PENALTY_EPSILON = 1e-12
"""Inside the square root: the gradient of the Frobenius norm stays finite where the norm vanishes."""


def tucker_weight(core: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """Build one task's weight from the shared core (Tucker form, [Kolda2009]_ Section 4).

    The core has shape ``(R_1, ..., R_N)``, the n-th factor, the task's own, ``(D_n, R_n)``, the weight ``(D_1, ...)``.

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
class TensorFactorization(AbstractKernelSharing):
    """W = core x1 U1 x2 U2 ... xN UN; the core is shared, the factors U and the bias are the task's ([Bulat2020]_).

    A block with several kernels has a core for each.
    """

    name: ClassVar[str] = "tf"
    prior_start: ClassVar[tuple[float, float] | None] = (0.8, 0.1)
    """Of four layers the first two are likelier to transfer than not: tasks whose factors adapt a core to them gain by
    sharing the second one, too, and forget less of it than where they share the weights themselves."""

    penalty_weight: Annotated[float, Range(least=0)] = 0.1
    """Weight of sum ||U'U - I||_F over the task's factor matrices U, which keeps them near orthogonal; not negative."""
    max_rank: Annotated[int, Range(least=1)] = 256
    """Longest side of the shared core; where a kernel has a longer one, as in the last stage of the paper's ResNet, its
    factor is not square."""
    start: Literal["identity", "glorot"] = "identity"
    """``identity``: the weight starts as the core itself; of a factor that is not square the columns are orthonormal,
    at random. ``glorot``: random factors, as the paper has them."""
    factors_start: Literal["fresh", "latest"] = "latest"
    """A new task's factors and bias start as ``start`` says, or from the latest task that transferred the layer."""
    step_scale: Annotated[float, Range(above=0)] = 1.0
    """Step size of the core, the factors and the bias, relative to plain weights'; positive."""

    def shared_kernel_shapes(self, kernel: Kernel) -> dict[str, tuple[int, ...]]:
        return {"core": self._ranks(kernel)}

    def task_kernel_shapes(self, kernel: Kernel) -> dict[str, tuple[int, ...]]:
        pairs = zip(kernel.shape, self._ranks(kernel), strict=True)
        return {f"factor.{n}": pair for n, pair in enumerate(pairs)}

    def initial_shared_kernel(self, kernel: Kernel, plain: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Cut a plain kernel to the core's ranks, so large that W has its deviation, or Glorot's for random factors.

        A pretrained kernel's core is that of its truncated higher-order singular value decomposition
        ([Kolda2009]_ Section 4.2): nothing is lost within ``max_rank``, and little beyond it.
        """
        shape = self._ranks(kernel)
        if self.start == "glorot":
            receptive = torch.Size(shape[2:]).numel()
            return {"core": glorot_uniform(shape, shape[1] * receptive, shape[0] * receptive, generator)}
        if kernel.pretrained:
            return {"core": tucker_weight(plain, [basis.T for basis in _bases(plain, shape)])}
        core = plain[tuple(slice(rank) for rank in shape)]
        return {"core": core * math.sqrt(math.prod(kernel.shape) / math.prod(shape))}

    def initial_task_kernel(
        self, kernel: Kernel, shared: Weights, plain: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        if self.start == "identity" and kernel.pretrained:
            return {f"factor.{n}": basis for n, basis in enumerate(_bases(plain, self._ranks(kernel)))}
        shapes = self.task_kernel_shapes(kernel)
        if self.start == "glorot":
            return {name: glorot_uniform(shape, shape[1], shape[0], generator) for name, shape in shapes.items()}
        # not the identity cut to R columns: D - R outputs would be 0, and stay so after a ReLU
        return {
            name: torch.eye(d) if d == r else torch.linalg.qr(torch.randn(d, r, generator=generator)).Q
            for name, (d, r) in shapes.items()
        }

    @property
    def random_bias(self) -> bool:
        return self.start == "glorot"

    def kernel(self, kernel: Kernel, shared: Weights, task: Weights) -> Tensor:
        return tucker_weight(shared["core"], [task[f"factor.{n}"] for n in range(shared["core"].ndim)])

    def kernel_penalty(self, kernel: Kernel, task: Weights) -> Tensor | None:
        """Return penalty_weight * sum over factors of ||U'U - I||_F (the norm itself, not its square)."""
        if self.penalty_weight == 0:
            return None
        norms = []
        for factor in (task[name] for name in sorted(task) if name.startswith("factor.")):  # a file has no order
            gram = factor.T @ factor
            gap = gram - torch.eye(gram.shape[0], dtype=gram.dtype, device=gram.device)
            norms.append((gap.square().sum() + _PENALTY_EPSILON).sqrt())
        return self.penalty_weight * torch.stack(norms).sum()

    def _ranks(self, kernel: Kernel) -> tuple[int, ...]:
        return tuple(min(size, self.max_rank) for size in kernel.shape)


def _bases(plain: Tensor, ranks: tuple[int, ...]) -> list[Tensor]:
    """Return for each mode n the R_n leading left singular vectors of the unfolded kernel, (D_n, R_n); all: I."""
    bases = []
    for mode, rank in enumerate(ranks):
        unfolded = plain.movedim(mode, 0).flatten(1).double()
        if rank == len(unfolded):
            bases.append(torch.eye(rank, dtype=plain.dtype))
        elif len(unfolded) <= unfolded.shape[1]:
            _, vectors = torch.linalg.eigh(unfolded @ unfolded.T)  # from the smallest eigenvalue to the largest
            bases.append(vectors[:, -rank:].flip(1).contiguous().to(plain.dtype))
        else:  # a table of words: D x D numbers would not fit into memory
            vectors = torch.linalg.svd(unfolded, full_matrices=False).U
            lacking = max(0, rank - vectors.shape[1])  # QR keeps what is orthonormal and adds what is orthogonal to it
            whole = torch.cat([vectors, torch.eye(len(vectors), lacking, dtype=vectors.dtype)], dim=1)
            bases.append((torch.linalg.qr(whole).Q if lacking else whole)[:, :rank].contiguous().to(plain.dtype))
    return bases
