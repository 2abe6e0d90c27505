"""Plain networks of any sizes, and those of the paper, whose table is written down once more by hand."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lasem.errors import ConfigError
from lasem.nets import (
    NETS,
    AbstractNet,
    ConvBlock,
    LinearBlock,
    Net,
    cifar,
    digits,
    for_images,
    of_paper,
    office_home,
    small,
    stl10,
)

from .modules import features, generator


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


def check_blocks_and_head_fit_each_other(net: AbstractNet, num_classes: int = 2) -> None:
    x = features(net, torch.randn(2, *net.image_shape))
    assert net.depth == len(net.blocks) >= 1
    logits = net.head.apply(net.head.initial(num_classes, generator(), net.initial), x)
    assert logits.shape == (2, num_classes)
    assert bool(logits.isfinite().all())


@given(nets(), st.integers(2, 5))
def test_blocks_and_head_fit_each_other(net: Net, num_classes: int) -> None:
    check_blocks_and_head_fit_each_other(net, num_classes)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 6, 5), (2, 9, 13)])
def test_they_take_images_of_any_size(name: str, shape: tuple[int, int, int]) -> None:
    check_blocks_and_head_fit_each_other(NETS[name](shape))


def test_linear_layers_stand_behind_the_convolutions() -> None:
    net = Net(image_shape=(2, 5, 7), channels=(3,), kernels=(3,), pools=(2,), linear=(6, 4), hidden=())
    assert net.blocks == (ConvBlock(2, 3, 3, 1, 2), LinearBlock(3 * 3 * 4, 6), LinearBlock(6, 4))
    assert (net.head.in_features, net.depth) == (4, 3)


def test_lists_become_tuples_and_strides_ones() -> None:
    net = Net(image_shape=[1, 4, 4], channels=[2], kernels=[3], pools=[1])  # type: ignore[arg-type]
    assert (net.image_shape, net.channels, net.strides) == ((1, 4, 4), (2,), (1,))
    assert hash(net) == hash(Net(image_shape=(1, 4, 4), channels=(2,), kernels=(3,), pools=(1,)))


TABLE = [
    (cifar(), (32, 32, 64, 64), (3,) * 4, (1, 2, 1, 2), (64,), 64 * 8 * 8),
    (cifar(depth=6), (32, 32, 64, 64, 128, 128), (3,) * 6, (1, 2) * 3, (64,), 128 * 4 * 4),
    (cifar(depth=8), (32, 32, 64, 64, 128, 128, 128, 128), (3,) * 8, (1, 2) * 4, (64,), 128 * 2 * 2),
    (office_home(), (64, 256, 256, 256), (11, 5, 3, 3), (3, 3, 2, 2), (256, 64), 256 * 4 * 4),
    (stl10(), (32, 32, 64, 64, 128, 128), (3,) * 6, (1, 3, 1, 3, 1, 3), (128, 16), 128 * 4 * 4),
]


@pytest.mark.parametrize(("net", "channels", "kernels", "pools", "hidden", "features"), TABLE)
def test_the_papers_networks(net: Net, channels: Any, kernels: Any, pools: Any, hidden: Any, features: int) -> None:
    assert (net.channels, net.kernels, net.pools, net.hidden) == (channels, kernels, pools, hidden)
    assert set(net.strides) == {1}
    assert (net.linear, net.dropout, net.head.in_features) == ((), 0.5, features)


def test_the_cifar_networks_parameters_counted_by_hand() -> None:
    by_hand = (27 * 32 + 32) + (288 * 32 + 32) + (288 * 64 + 64) + (576 * 64 + 64)
    assert sum(block.num_parameters for block in cifar().blocks) == by_hand
    assert sum(torch.Size(s).numel() for s in cifar().head.shapes(10).values()) == 4096 * 64 + 64 + 64 * 10 + 10


def test_the_network_that_suits_a_size() -> None:
    limits = {digits: (8, 16), cifar: (17, 64), stl10: (65, 112), office_home: (113,)}
    for net, side in ((net, side) for net, sides in limits.items() for side in sides):
        assert of_paper((3, 5, side)) == net((3, 5, side))
        assert for_images((3, 5, side)) == (small if 16 < side <= 112 else net)((3, 5, side))
        assert for_images((1, 5, side)) == net((1, 5, side))


def test_other_depths_are_refused() -> None:
    with pytest.raises(ConfigError, match="depth must be one of 4, 6, 8; got '5'"):
        cifar(depth=5)  # type: ignore[arg-type]
