"""TF and DF-CNN on blocks of several kernels, and where a kernel was learned elsewhere."""

from __future__ import annotations

import pytest
import torch
from nets.modules import SmallResNet, normalised, seeded

from lasem.errors import ConfigError
from lasem.nets import cut
from lasem.sharing import AbstractSharing, Deconvolution, HardSharing, Kernel, LowRank, TensorFactorization

SHAPE = (1, 6, 6)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    "sharing", [HardSharing(), TensorFactorization(), Deconvolution(), LowRank()], ids=lambda sharing: sharing.name
)
def test_a_pretrained_block_is_where_the_first_task_starts(sharing: AbstractSharing) -> None:
    for block in cut(seeded(SmallResNet), image_shape=SHAPE).blocks:
        plain = block.initial(generator(), "he")
        shared = sharing.initial_shared(block, plain, generator(1))
        own = sharing.initial_task(block, shared, plain, generator(2))
        made = sharing.weights(block, shared, own)
        assert {name: tuple(value.shape) for name, value in shared.items()} == sharing.shared_shapes(block)
        assert {name: tuple(value.shape) for name, value in own.items()} == sharing.task_shapes(block)
        assert set(made) == set(plain)
        for name, value in plain.items():
            torch.testing.assert_close(made[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_what_is_shared_of_a_block_and_what_is_the_tasks() -> None:
    block = cut(seeded(normalised), image_shape=SHAPE).blocks[0]
    rest = {"0.bias", "1.weight", "1.bias"}
    factorised = TensorFactorization()
    assert set(factorised.shared_shapes(block)) == {"0.weight.core"}
    assert set(factorised.task_shapes(block)) == {*(f"0.weight.factor.{n}" for n in range(4)), *rest}
    deconvolved = Deconvolution()
    assert set(deconvolved.shared_shapes(block)) == {"0.weight.knowledge"}
    assert set(deconvolved.task_shapes(block)) == {f"0.weight.{n}" for n in ("filter", "filter_bias", "combine")} | rest
    assert (deconvolved.step("0.weight.knowledge"), deconvolved.step("0.weight.combine")) == (0.1, 1.0)
    assert set(HardSharing().shared_shapes(block)) == {"0.weight", *rest}


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
        assert penalty is not None
        assert float(penalty) < 1e-5  # the factors' columns are orthonormal
    assert float(made.norm()) > 0


def test_the_penalty_is_the_sum_over_kernels() -> None:
    block = cut(seeded(SmallResNet), image_shape=SHAPE).blocks[1]
    sharing = TensorFactorization()
    own = {name: torch.randn(shape, generator=generator(1)) for name, shape in sharing.task_shapes(block).items()}
    naive = torch.zeros(())
    for name, value in own.items():
        if ".factor." in name:
            naive += (value.T @ value - torch.eye(value.shape[1])).norm()
    penalty = sharing.penalty(block, own)
    assert penalty is not None
    torch.testing.assert_close(penalty, 0.1 * naive)


def test_deconvolution_goes_back_towards_pretrained_kernels() -> None:
    block, sharing = cut(seeded(SmallResNet), image_shape=SHAPE).blocks[1], Deconvolution()
    plain = block.initial(generator(), "he")
    shared = sharing.initial_shared(block, plain, generator(1))
    own = sharing.initial_task(block, shared, plain, generator(2))
    taken = {name: value + 0.1 * torch.randn(value.shape, generator=generator(3)) for name, value in own.items()}
    before = sharing.weights(block, shared, taken)
    after = sharing.weights(block, shared, sharing.blend_with_fresh(block, shared, taken, plain, 0.25))
    for name, value in plain.items():
        torch.testing.assert_close(after[name], 0.25 * before[name] + 0.75 * value, rtol=1e-3, atol=1e-4, msg=name)


def test_deconvolution_refuses_a_pretrained_matrix() -> None:
    kernel = Kernel((24, 8), pretrained=True)
    with pytest.raises(
        ConfigError, match=r"cannot begin at a pretrained kernel of shape \(24, 8\): it makes 192 pixels"
    ):
        Deconvolution().initial_task_kernel(kernel, {}, torch.randn(24, 8), generator())


@pytest.mark.parametrize("rank", [4, 6, 9])
def test_a_tall_pretrained_matrix_needs_no_square_of_its_height(rank: int) -> None:
    """A table of words has many more rows than columns."""
    kernel, sharing = Kernel((50, 6), pretrained=True), TensorFactorization(max_rank=rank)
    plain = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator()
    shared = sharing.initial_shared_kernel(kernel, plain, generator)
    own = sharing.initial_task_kernel(kernel, shared, plain, generator)
    basis = own["factor.0"]
    assert basis.shape == (50, rank)
    torch.testing.assert_close(basis.T @ basis, torch.eye(rank), rtol=0, atol=1e-5)
    left, values, right = torch.linalg.svd(plain, full_matrices=False)
    values[rank:] = 0
    best = left @ values.diag() @ right  # of that rank none is nearer
    torch.testing.assert_close(sharing.kernel(kernel, shared, own), best, rtol=1e-4, atol=1e-5)
