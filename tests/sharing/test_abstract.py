"""Mechanisms on blocks of several kernels, and from pretrained kernels."""

from typing import Any

import pytest
import torch
from learner.fixture import tiny_net
from nets.modules import SHAPE, SmallResNet, normalised, seeded

from lasem.errors import ConfigError
from lasem.learner import Learner
from lasem.nets import ConvBlock, cut
from lasem.sharing import AbstractSharing, Deconvolution, HardSharing, LowRank, TensorFactorization

from .fixture import shapes_of, start

REST = {"0.bias", "1.weight", "1.bias"}
FACTORS = {f"0.weight.factor.{n}" for n in range(4)}
PARTS: list[tuple[AbstractSharing, set[str], set[str]]] = [
    (HardSharing(), {"0.weight", *REST}, set()),
    (TensorFactorization(), {"0.weight.core"}, FACTORS | REST),
    (
        Deconvolution(),
        {"0.weight.knowledge"},
        {*(f"0.weight.{n}" for n in ("filter", "filter_bias", "combine")), *REST},
    ),
    (LowRank(), {"0.weight.weight", *REST}, {"0.weight.change.down", "0.weight.change.up"}),
]


@pytest.mark.parametrize(("sharing", "shared", "own"), PARTS, ids=lambda value: getattr(value, "name", ""))
def test_what_is_shared_of_a_block_and_what_is_owned(sharing: AbstractSharing, shared: set[str], own: set[str]) -> None:
    block = cut(seeded(normalised), image_shape=SHAPE).blocks[0]
    assert (set(sharing.shared_shapes(block)), set(sharing.task_shapes(block))) == (shared, own)


@pytest.mark.parametrize("sharing", [sharing for sharing, *_ in PARTS], ids=lambda sharing: sharing.name)
def test_a_pretrained_block_is_where_the_first_task_starts(sharing: AbstractSharing) -> None:
    for block in cut(seeded(SmallResNet), image_shape=SHAPE).blocks:
        plain, shared, own, made = start(sharing, block)
        assert shapes_of(shared) == sharing.shared_shapes(block)
        assert shapes_of(own) == sharing.task_shapes(block)
        assert set(made) == set(plain)
        for name, value in plain.items():
            torch.testing.assert_close(made[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_hard_sharing_gives_the_shared_layer_itself() -> None:
    plain, shared, own, made = start(HardSharing(), ConvBlock(2, 3, 3))
    assert (own, HardSharing().penalty(ConvBlock(2, 3, 3), own)) == ({}, None)
    assert all(made[name] is shared[name] and torch.equal(shared[name], value) for name, value in plain.items())


@pytest.mark.parametrize("cls", [LowRank, HardSharing])
def test_frozen_weights_that_nobody_trained_are_refused(cls: Any) -> None:
    message = rf"{cls.__name__}\.train_shared=False keeps .* at random.*set train_shared to True"
    with pytest.raises(ConfigError, match=message):
        Learner(tiny_net(), sharing=cls(train_shared=False))
