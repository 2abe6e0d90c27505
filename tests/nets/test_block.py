from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lasem.nets import ConvBlock, LinearBlock


def random_weights(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {k: torch.randn(shape, dtype=torch.float64, generator=generator) for k, shape in shapes.items()}


def naive_convolution(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """SAME: ceil(size / stride) outputs; where the zeros around do not divide evenly, one more at the end."""
    out, _, kernel, _ = weight.shape
    batch, _, height, width = x.shape
    sides = [math.ceil(size / stride) for size in (height, width)]
    before = [max((n - 1) * stride + kernel - size, 0) // 2 for n, size in zip(sides, (height, width), strict=True)]
    result = torch.zeros(batch, out, *sides, dtype=x.dtype)
    for n, o, i, j in product(range(batch), range(out), *map(range, sides)):
        total = bias[o].clone()
        for a, b in product(range(kernel), repeat=2):
            row, column = i * stride - before[0] + a, j * stride - before[1] + b
            if 0 <= row < height and 0 <= column < width:
                total += (x[n, :, row, column] * weight[o, :, a, b]).sum()
        result[n, o, i, j] = total
    return result


def naive_pooling(x: Tensor, window: int) -> Tensor:
    """The windows at the border hold what is there."""
    batch, channels, *sides = x.shape
    result = torch.zeros(batch, channels, *(math.ceil(side / window) for side in sides), dtype=x.dtype)
    for i, j in product(*map(range, result.shape[2:])):
        part = x[:, :, i * window : (i + 1) * window, j * window : (j + 1) * window]
        result[:, :, i, j] = part.amax(dim=(2, 3))
    return result


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
def test_convolution_relu_and_pooling_are_their_definitions(kernel: int, stride: int) -> None:
    for pool, (height, width) in ((1, (5, 4)), (2, (5, 7))):
        block = ConvBlock(2, 3, kernel, stride, pool)
        weights, x = random_weights(block.shapes), random_weights({"x": (2, 2, height, width)}, 1)["x"]
        before = x.clone()
        expected = naive_convolution(x, weights["weight"], weights["bias"], stride).clamp_min(0)
        torch.testing.assert_close(block.apply(weights, x), naive_pooling(expected, pool))
        assert torch.equal(x, before)


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.integers(1, 6),
    st.integers(1, 3),
    st.integers(1, 4),
    st.booleans(),
)
def test_no_image_is_too_small(size: tuple[int, int], kernel: int, stride: int, pool: int, channels_last: bool) -> None:
    block = ConvBlock(2, 3, kernel, stride, pool)
    x = torch.randn(2, 2, *size)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    out = block.apply({k: torch.randn(shape) for k, shape in block.shapes.items()}, x)
    expected = [math.ceil(math.ceil(side / stride) / pool) for side in size]
    assert list(out.shape) == [2, 3, *expected]
    assert [block.output_size(side) for side in size] == expected
    assert bool((out >= 0).all())


def test_a_linear_block_flattens_and_rectifies() -> None:
    block = LinearBlock(12, 5)
    weights, x = random_weights(block.shapes), random_weights({"x": (4, 3, 2, 2)}, 1)["x"]
    for given_x in (x, x.contiguous(memory_format=torch.channels_last)):
        out = block.apply(weights, given_x)
        for n, o in product(range(4), range(5)):
            total = weights["bias"][o] + sum(x[n].reshape(-1)[i] * weights["weight"][o, i] for i in range(12))
            torch.testing.assert_close(out[n, o], total.clamp_min(0))


@pytest.mark.parametrize("block", [ConvBlock(3, 5, 4, 2, 2), LinearBlock(7, 4)])
def test_entries_of_a_batch_do_not_meet(block: ConvBlock | LinearBlock) -> None:
    weights = random_weights(block.shapes)
    x = random_weights({"x": (3, 3, 6, 6) if isinstance(block, ConvBlock) else (3, 7)})["x"]
    together = block.apply(weights, x)
    for n in range(3):
        torch.testing.assert_close(together[n : n + 1], block.apply(weights, x[n : n + 1]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("block", [ConvBlock(3, 5, 4), LinearBlock(7, 4)])
def test_fresh_weights_have_the_shapes_that_are_promised(block: ConvBlock | LinearBlock) -> None:
    first, again, other = (block.initial(torch.Generator().manual_seed(seed), "he") for seed in (0, 0, 1))
    assert {k: tuple(v.shape) for k, v in first.items()} == block.shapes
    assert block.num_parameters == sum(v.numel() for v in first.values())
    assert torch.equal(first["weight"], again["weight"])
    assert not torch.equal(first["weight"], other["weight"])


@pytest.mark.parametrize(("kernel", "stride", "pool"), [*product((1, 2, 3, 4, 5), (1, 2, 3), (1, 2))])
@pytest.mark.parametrize("size", [(6, 6), (7, 5)])
def test_preactivation_activation_and_pooling_make_a_block(
    kernel: int, stride: int, pool: int, size: tuple[int, int]
) -> None:
    x = torch.randn(2, 3, *size)
    for block in (ConvBlock(3, 4, kernel, stride, pool), LinearBlock(3 * size[0] * size[1], 4)):
        weights = {name: torch.randn(shape) for name, shape in block.shapes.items()}
        assert torch.equal(block.reduce(torch.relu(block.preactivate(weights, x))), block.apply(weights, x))
