import math
from itertools import permutations, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nets.modules import SHAPE, SmallResNet, generator, seeded

from lasem.errors import ShapeError
from lasem.nets import AbstractBlock, ConvBlock, LinearBlock, cut
from lasem.sharing import Kernel, TensorFactorization, tucker_weight

from .fixture import random, start


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=4))
def test_tucker_weight_is_the_sum_in_its_definition(sizes: list[tuple[int, int]]) -> None:
    core = torch.randn([rank for _, rank in sizes], dtype=torch.float64, generator=generator())
    factors = [torch.randn(size, rank, dtype=torch.float64, generator=generator(1)) for size, rank in sizes]
    expected = torch.zeros([size for size, _ in sizes], dtype=torch.float64)
    for at in product(*(range(size) for size, _ in sizes)):
        for of in product(*(range(rank) for _, rank in sizes)):
            expected[at] += core[of] * math.prod(float(f[i, r]) for f, i, r in zip(factors, at, of, strict=True))
    torch.testing.assert_close(tucker_weight(core, factors), expected)


def test_factors_that_do_not_fit_are_named() -> None:
    with pytest.raises(ShapeError, match=r"core of shape \(2, 3\); got factors of shapes \[\(4, 2\), \(5, 2\)\]"):
        tucker_weight(torch.zeros(2, 3), [torch.zeros(4, 2), torch.zeros(5, 2)])
    with pytest.raises(ShapeError, match="one factor"):
        tucker_weight(torch.zeros(2, 3), [torch.zeros(4, 2)])


@pytest.mark.parametrize("block", [ConvBlock(3, 5, 3), ConvBlock(2, 2, 4, 2), LinearBlock(6, 4)])
def test_the_papers_shapes(block: AbstractBlock) -> None:
    sharing, kernel = TensorFactorization(), block.shapes["weight"]
    assert sharing.shared_shapes(block) == {"core": kernel}
    owned = {f"factor.{n}": (size, size) for n, size in enumerate(kernel)}
    assert sharing.task_shapes(block) == owned | {"bias": (kernel[0],)}


@pytest.mark.parametrize("rule", ["he", "paper"])
@pytest.mark.parametrize("block", [ConvBlock(3, 5, 3), LinearBlock(6, 4)])
def test_an_identity_start_is_the_core_itself(block: AbstractBlock, rule: str) -> None:
    plain, shared, _, made = start(TensorFactorization(start="identity"), block, rule)
    assert torch.equal(made["weight"], shared["core"])
    assert torch.equal(shared["core"], plain["weight"])
    assert torch.equal(made["bias"], plain["bias"])


@pytest.mark.parametrize("block", [LinearBlock(40, 30), ConvBlock(20, 24, 3)], ids=["linear", "conv"])
def test_of_a_rank_below_the_size_every_output_starts_alive(block: AbstractBlock) -> None:
    sharing = TensorFactorization(max_rank=8)
    plain, _, own, made = start(sharing, block)
    weight = made["weight"]
    assert float(weight.flatten(1).norm(dim=1).min()) > 0.2 * float(plain["weight"].flatten(1).norm(dim=1).mean())
    assert 0.8 < float(weight.std() / plain["weight"].std()) < 1.25
    penalty = sharing.penalty(block, own)
    assert penalty.item() < 1e-5  # U'U = I


def test_beyond_the_largest_rank_little_of_a_pretrained_kernel_is_lost() -> None:
    """Within it nothing; and the truncated decomposition is nearer than a corner of the kernel could be."""
    kernel = Kernel((6, 5, 3, 3), pretrained=True)
    low = torch.einsum("or,ri->oi", torch.randn(6, 2, generator=generator()), torch.randn(2, 5, generator=generator(1)))
    weight = low[:, :, None, None] * torch.randn(3, 3, generator=generator(2))
    for rank, error in ((6, 1e-6), (3, 1e-5), (1, 0.9)):
        sharing = TensorFactorization(max_rank=rank)
        shared = sharing.initial_shared_kernel(kernel, weight, generator())
        own = sharing.initial_task_kernel(kernel, shared, weight, generator())
        made = sharing.kernel(kernel, shared, own)
        assert float((made - weight).norm() / weight.norm()) < error
        penalty = sharing.kernel_penalty(kernel, own)
        assert float(penalty) < 1e-5  # the factors' columns are orthonormal
    assert float(made.norm()) > 0


@pytest.mark.parametrize("rank", [4, 6, 9])
def test_a_tall_pretrained_matrix_needs_no_square_of_its_height(rank: int) -> None:
    """A table of words has many more rows than columns."""
    kernel, sharing = Kernel((50, 6), pretrained=True), TensorFactorization(max_rank=rank)
    plain = torch.randn(50, 6, generator=generator())
    shared = sharing.initial_shared_kernel(kernel, plain, generator())
    own = sharing.initial_task_kernel(kernel, shared, plain, generator())
    basis = own["factor.0"]
    assert basis.shape == (50, rank)
    torch.testing.assert_close(basis.T @ basis, torch.eye(rank), rtol=0, atol=1e-5)
    left, values, right = torch.linalg.svd(plain, full_matrices=False)
    values[rank:] = 0
    best = left @ values.diag() @ right  # of that rank none is nearer
    torch.testing.assert_close(sharing.kernel(kernel, shared, own), best, rtol=1e-4, atol=1e-5)


RESIDUAL = cut(seeded(SmallResNet), image_shape=SHAPE).blocks[1]


@pytest.mark.parametrize("weight", [0.1, 2.5])
@pytest.mark.parametrize("block", [ConvBlock(3, 2, 3), LinearBlock(4, 3), RESIDUAL], ids=["conv", "linear", "several"])
def test_the_penalty_is_the_sum_of_norms_and_not_of_their_squares(block: AbstractBlock, weight: float) -> None:
    sharing = TensorFactorization(penalty_weight=weight, max_rank=2)
    task = random(sharing.task_shapes(block))
    factors = [value for name, value in task.items() if "factor." in name]
    naive = sum((value.T @ value - torch.eye(value.shape[1])).square().sum().sqrt() for value in factors)
    torch.testing.assert_close(sharing.penalty(block, task), weight * naive, rtol=1e-9, atol=0)


def test_the_penalty_vanishes_at_orthogonal_factors_with_a_finite_gradient() -> None:
    block = ConvBlock(3, 2, 3)
    task = {k: v.double().requires_grad_() for k, v in start(TensorFactorization(), block).own.items()}
    penalty = TensorFactorization().penalty(block, task)
    assert 0 <= penalty.item() < 1e-6
    penalty.backward()
    for name, factor in task.items():
        assert factor.grad is None if name == "bias" else bool(factor.grad.isfinite().all())


def test_the_order_in_which_factors_are_read_changes_no_bit() -> None:
    """safetensors gives the tensors of a file in any order, and a sum of floats depends on it."""
    sharing, block = TensorFactorization(), ConvBlock(5, 7, 3)
    for seed in range(5):
        task = random(sharing.task_shapes(block), torch.float32, seed)
        penalties = [sharing.penalty(block, {k: task[k] for k in order}) for order in permutations(task)]
        assert len({p.item() for p in penalties if p is not None}) == 1
