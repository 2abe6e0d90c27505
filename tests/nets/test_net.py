from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lasem.errors import ConfigError
from lasem.nets import ConvBlock, LinearBlock, Net


@st.composite
def nets(draw: st.DrawFn) -> Net:
    depth = draw(st.integers(0, 3))

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.integers(low, high), min_size=depth, max_size=depth)))

    return Net(
        image_shape=(draw(st.integers(1, 4)), draw(st.integers(1, 11)), draw(st.integers(1, 11))),
        channels=each(1, 4),
        kernels=each(1, 5),
        pools=each(1, 3),
        strides=draw(st.sampled_from(((), each(1, 2)))),
        linear=tuple(draw(st.lists(st.integers(1, 5), min_size=0 if depth else 1, max_size=2))),
        hidden=tuple(draw(st.lists(st.integers(1, 5), max_size=2))),
        initial=draw(st.sampled_from(("he", "paper"))),
    )


@given(nets(), st.integers(2, 5))
def test_blocks_and_head_fit_each_other(net: Net, num_classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, *net.image_shape)
    assert net.depth == len(net.blocks) >= 1
    for block in net.blocks:
        x = block.apply(block.initial(generator, net.initial), x)
    logits = net.head.apply(net.head.initial(num_classes, generator, net.initial), x)
    assert logits.shape == (2, num_classes)
    assert bool(logits.isfinite().all())


def test_linear_layers_stand_behind_the_convolutions() -> None:
    net = Net(image_shape=(2, 5, 7), channels=(3,), kernels=(3,), pools=(2,), linear=(6, 4), hidden=())
    assert net.blocks == (ConvBlock(2, 3, 3, 1, 2), LinearBlock(3 * 3 * 4, 6), LinearBlock(6, 4))
    assert (net.head.in_features, net.depth) == (4, 3)


def test_lists_become_tuples_and_strides_ones() -> None:
    net = Net(image_shape=[1, 4, 4], channels=[2], kernels=[3], pools=[1])  # type: ignore[arg-type]
    assert (net.image_shape, net.channels, net.strides) == ((1, 4, 4), (2,), (1,))
    assert hash(net) == hash(Net(image_shape=(1, 4, 4), channels=(2,), kernels=(3,), pools=(1,)))


GOOD: dict[str, Any] = {"image_shape": (1, 4, 4), "channels": (2, 2), "kernels": (3, 3), "pools": (1, 1)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_shape": (4, 4)}, r"Net\.image_shape is \(channels, height, width\); got \(4, 4\)"),
        ({"kernels": (3,)}, "each of its 2 convolutions; got 1 kernels, 2 pools, 2 strides"),
        ({"strides": (2,)}, "got 2 kernels, 2 pools, 1 strides"),
        ({"channels": (), "kernels": (), "pools": ()}, "at least one layer that can be transferred; got none"),
        ({"channels": (2, 0)}, r"Net\.channels must be at least 1; got 0"),
        ({"hidden": (0,)}, r"Net\.hidden must be at least 1; got 0"),
        ({"dropout": 1.0}, r"Net\.dropout must be at least 0 and below 1; got 1\.0"),
        ({"initial": "papre"}, r"Net\.initial must be one of he, paper; got 'papre'\. Did you mean 'paper'\?"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Net(**GOOD | change)
