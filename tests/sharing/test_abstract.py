"""Mechanisms on blocks of several kernels, from pretrained kernels, and with settings that do not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from learner.fixture import tiny_net
from nets.modules import SmallResNet, normalised, seeded

from lasem.errors import ConfigError
from lasem.learner import Learner
from lasem.nets import cut
from lasem.sharing import AbstractSharing, Deconvolution, HardSharing, Kernel, LowRank, TensorFactorization

from .fixture import generator, moved, shapes_of, start

SHAPE = (1, 6, 6)
EVERY_SHARING = [HardSharing(), TensorFactorization(), Deconvolution(), LowRank()]
REST = {"0.bias", "1.weight", "1.bias"}


@pytest.mark.parametrize("sharing", EVERY_SHARING, ids=lambda sharing: sharing.name)
def test_a_pretrained_block_is_where_the_first_task_starts(sharing: AbstractSharing) -> None:
    for block in cut(seeded(SmallResNet), image_shape=SHAPE).blocks:
        plain, shared, own, made = start(sharing, block)
        assert shapes_of(shared) == sharing.shared_shapes(block)
        assert shapes_of(own) == sharing.task_shapes(block)
        assert set(made) == set(plain)
        for name, value in plain.items():
            torch.testing.assert_close(made[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("sharing", "shared", "own"),
    [
        (HardSharing(), {"0.weight", *REST}, set()),
        (TensorFactorization(), {"0.weight.core"}, {*(f"0.weight.factor.{n}" for n in range(4)), *REST}),
        (
            Deconvolution(),
            {"0.weight.knowledge"},
            {*(f"0.weight.{n}" for n in ("filter", "filter_bias", "combine")), *REST},
        ),
        (LowRank(), {"0.weight.weight", *REST}, {"0.weight.change.down", "0.weight.change.up"}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_is_shared_of_a_block_and_what_is_the_tasks(
    sharing: AbstractSharing, shared: set[str], own: set[str]
) -> None:
    block = cut(seeded(normalised), image_shape=SHAPE).blocks[0]
    assert (set(sharing.shared_shapes(block)), set(sharing.task_shapes(block))) == (shared, own)


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


def test_the_penalty_is_the_sum_over_kernels() -> None:
    block = cut(seeded(SmallResNet), image_shape=SHAPE).blocks[1]
    sharing = TensorFactorization()
    own = {name: torch.randn(shape, generator=generator(1)) for name, shape in sharing.task_shapes(block).items()}
    factors = [value for name, value in own.items() if ".factor." in name]
    naive = sum((value.T @ value - torch.eye(value.shape[1])).norm() for value in factors)
    torch.testing.assert_close(sharing.penalty(block, own), 0.1 * naive)


def test_deconvolution_goes_back_towards_pretrained_kernels() -> None:
    block, sharing = cut(seeded(SmallResNet), image_shape=SHAPE).blocks[1], Deconvolution()
    plain, shared, own, _ = start(sharing, block)
    taken = moved(own, 0.1)
    before = sharing.weights(block, shared, taken)
    after = sharing.weights(block, shared, sharing.blend_with_fresh(block, shared, taken, plain, 0.25))
    for name, value in plain.items():
        torch.testing.assert_close(after[name], 0.25 * before[name] + 0.75 * value, rtol=1e-3, atol=1e-4, msg=name)


def test_deconvolution_refuses_a_pretrained_matrix() -> None:
    kernel = Kernel((24, 8), pretrained=True)
    with pytest.raises(ConfigError, match=r"at a pretrained kernel of shape \(24, 8\): it makes 192 pixels"):
        Deconvolution().initial_task_kernel(kernel, {}, torch.randn(24, 8), generator())


@pytest.mark.parametrize("cls", [LowRank, HardSharing])
def test_frozen_weights_that_nobody_trained_are_refused(cls: Any) -> None:
    message = rf"{cls.__name__}\.train_shared=False keeps .* at random.*set train_shared to True"
    with pytest.raises(ConfigError, match=message):
        Learner(tiny_net(), sharing=cls(train_shared=False))


@pytest.mark.parametrize(
    ("cls", "change", "message"),
    [
        (LowRank, {"rank": 0}, r"LowRank\.rank must be at least 1; got 0"),
        (LowRank, {"scale": 0.0}, r"LowRank\.scale must be above 0"),
        (LowRank, {"factors_start": "last"}, r"LowRank\.factors_start must be one of fresh, latest"),
        (
            TensorFactorization,
            {"penalty_weight": -1},
            r"penalty_weight must be at least 0; got -1",
        ),
        (TensorFactorization, {"max_rank": 0}, r"TensorFactorization\.max_rank must be at least 1; got 0"),
        (TensorFactorization, {"start": "identiy"}, "Did you mean 'identity'"),
        (Deconvolution, {"filter_size": 4}, "filter_size must be odd; got 4"),
        (Deconvolution, {"filter_size": -1}, r"Deconvolution\.filter_size must be at least 1; got -1"),
        (Deconvolution, {"sizes": "stl10"}, r"one of cifar, stl-10; got 'stl10'\. Did you mean 'stl-10'"),
        (Deconvolution, {"start": "gloro"}, "Did you mean 'glorot'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(cls: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cls(**change)
