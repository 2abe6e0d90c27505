"""The sizes of the paper's Table and appendix, written down once more by hand."""

from __future__ import annotations

import pytest
import torch

from lasem.errors import ConfigError
from lasem.nets import NETS, Net, cifar, digits, for_images, office_home, stl10

TABLE = [
    (cifar(), (32, 32, 64, 64), (3,) * 4, (1, 2, 1, 2), (64,), 64 * 8 * 8),
    (cifar(depth=6), (32, 32, 64, 64, 128, 128), (3,) * 6, (1, 2) * 3, (64,), 128 * 4 * 4),
    (cifar(depth=8), (32, 32, 64, 64, 128, 128, 128, 128), (3,) * 8, (1, 2) * 4, (64,), 128 * 2 * 2),
    (office_home(), (64, 256, 256, 256), (11, 5, 3, 3), (3, 3, 2, 2), (256, 64), 256 * 4 * 4),
    (stl10(), (32, 32, 64, 64, 128, 128), (3,) * 6, (1, 3, 1, 3, 1, 3), (128, 16), 128 * 4 * 4),
]


@pytest.mark.parametrize(("net", "channels", "kernels", "pools", "hidden", "features"), TABLE)
def test_the_papers_networks(
    net: Net,
    channels: tuple[int, ...],
    kernels: tuple[int, ...],
    pools: tuple[int, ...],
    hidden: tuple[int, ...],
    features: int,
) -> None:
    assert (net.channels, net.kernels, net.pools, net.hidden) == (channels, kernels, pools, hidden)
    assert set(net.strides) == {1}
    assert (net.linear, net.dropout, net.head.in_features) == ((), 0.5, features)


def test_the_cifar_networks_parameters_counted_by_hand() -> None:
    by_hand = (27 * 32 + 32) + (288 * 32 + 32) + (288 * 64 + 64) + (576 * 64 + 64)
    assert sum(block.num_parameters for block in cifar().blocks) == by_hand
    assert sum(torch.Size(s).numel() for s in cifar().head.shapes(10).values()) == 4096 * 64 + 64 + 64 * 10 + 10


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 6, 5), (2, 9, 13)])
def test_they_take_images_of_any_size(name: str, shape: tuple[int, int, int]) -> None:
    net, generator = NETS[name](shape), torch.Generator().manual_seed(0)
    x = torch.randn(1, *shape)
    for block in net.blocks:
        x = block.apply(block.initial(generator, "he"), x)
    assert net.head.apply(net.head.initial(2, generator, "he"), x).shape == (1, 2)


def test_the_network_that_suits_a_size() -> None:
    for side, net in (
        (8, digits),
        (16, digits),
        (17, cifar),
        (64, cifar),
        (65, stl10),
        (112, stl10),
        (113, office_home),
    ):
        assert for_images((3, 5, side)) == net((3, 5, side))


def test_other_depths_are_refused() -> None:
    with pytest.raises(ConfigError, match="depth must be one of 4, 6, 8; got '5'"):
        cifar(depth=5)  # type: ignore[arg-type]
