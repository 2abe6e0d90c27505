"""Plain blocks by their definitions, and what every block must do."""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from learner.fixture import assert_same_tensors, copied
from sharing.fixture import random, shapes_of
from torch import Tensor, nn

from lasem.nets import (
    AbstractBlock,
    ClosingBlock,
    ConvBlock,
    InitialWeights,
    LinearBlock,
    OpeningBlock,
    PoolBorder,
    cut,
)

from .modules import SHAPE, SmallResNet, SmallViT, generator, normalised, seeded


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


def naive_pooling(x: Tensor, window: int, border: PoolBorder) -> Tensor:
    """The windows at the border hold what is there; the first ones begin before it if ``both`` borders are filled."""
    batch, channels, *sides = x.shape
    numbers = [math.ceil(side / window) for side in sides]
    before = [(n * window - side) // 2 * (border == "both") for n, side in zip(numbers, sides, strict=True)]
    result = torch.zeros(batch, channels, *numbers, dtype=x.dtype)
    for i, j in product(*map(range, numbers)):
        top, left = i * window - before[0], j * window - before[1]
        part = x[:, :, max(top, 0) : top + window, max(left, 0) : left + window]
        result[:, :, i, j] = part.amax(dim=(2, 3))
    return result


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
def test_convolution_relu_and_pooling_are_their_definitions(kernel: int, stride: int) -> None:
    cases: list[tuple[int, tuple[int, int], PoolBorder]] = [(1, (5, 4), "end"), (2, (5, 7), "both"), (2, (6, 6), "end")]
    for pool, (height, width), border in cases:
        block = ConvBlock(2, 3, kernel, stride, pool, border)
        weights, x = random(block.shapes), random({"x": (2, 2, height, width)}, seed=1)["x"]
        out = block.apply(weights, x)
        expected = naive_convolution(x, weights["weight"], weights["bias"], stride).clamp_min(0)
        torch.testing.assert_close(out, naive_pooling(expected, pool, border))
        assert torch.equal(block.reduce(torch.relu(block.preactivate(weights, x))), out)


@given(st.tuples(st.integers(1, 45), st.integers(1, 7)), st.integers(2, 5), st.sampled_from(("end", "both")))
@example((43, 7), 3, "both")  # the second layer of the Office-Home network
def test_pooling_fills_up_one_border_or_both(sides: tuple[int, int], window: int, border: PoolBorder) -> None:
    x = torch.randn(1, 2, *sides, generator=generator())
    assert torch.equal(ConvBlock(1, 2, 1, 1, window, border).reduce(x), naive_pooling(x, window, border))


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
    weights, x = random(block.shapes), random({"x": (4, 3, 2, 2)}, seed=1)["x"]
    for given_x in (x, x.contiguous(memory_format=torch.channels_last)):
        out = block.apply(weights, given_x)
        for n, o in product(range(4), range(5)):
            total = weights["bias"][o] + sum(x[n].reshape(-1)[i] * weights["weight"][o, i] for i in range(12))
            torch.testing.assert_close(out[n, o], total.clamp_min(0))
        assert torch.equal(torch.relu(block.preactivate(weights, given_x)), out)


def first_of(build: Callable[[], nn.Module], **settings: Any) -> AbstractBlock:
    return cut(seeded(build), image_shape=SHAPE, **settings).blocks[0]


EVERY_BLOCK: dict[str, tuple[AbstractBlock, list[tuple[int, ...]]]] = {
    "convolution": (ConvBlock(3, 5, 4, 2, 2), [(3, 6, 6)]),
    "linear": (LinearBlock(7, 4), [(7,)]),
    "opening": (OpeningBlock(ConvBlock(3, 4, 3)), [(3, 6, 6)]),
    "closing": (ClosingBlock(ConvBlock(4, 4, 3, pool=2), 0.5), [(4, 5, 6), (3, 5, 6)]),
    "closing-added-last": (ClosingBlock(ConvBlock(4, 4, 3), added_last=True), [(4, 5, 6), (4, 5, 6)]),
    **{
        f"{build.__name__}-{kind}": (first_of(build, **settings), [SHAPE])
        for build in (normalised, SmallResNet, SmallViT)
        for kind, settings in (("pretrained", {}), ("fresh", {"pretrained": False}), ("changed", {"rank": 2}))
    },
}
every_block = pytest.mark.parametrize(("block", "shapes"), EVERY_BLOCK.values(), ids=EVERY_BLOCK)


@every_block
@pytest.mark.parametrize("rule", ["he", "paper"])
def test_its_start_comes_from_the_generator_alone(block: AbstractBlock, shapes: Any, rule: InitialWeights) -> None:
    state = torch.random.get_rng_state()
    first, again, other = (block.initial(generator(seed), rule) for seed in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    assert shapes_of(first) == block.shapes
    assert block.num_parameters == sum(value.numel() for value in first.values())
    assert_same_tensors(first, again)
    always_the_same = block.fresh_share(0.25) == 0.75
    for name, value in first.items():
        constant = bool((value == value.flatten()[0]).all())
        assert torch.equal(value, other[name]) == (always_the_same or constant), name
    assert shapes_of(block.initial_statistics()) == block.statistics


@every_block
def test_it_reads_its_arguments_and_draws_nothing(block: AbstractBlock, shapes: list[tuple[int, ...]]) -> None:
    """And entries of a batch do not meet."""
    given = {**block.initial(generator(), "he"), **block.initial_statistics()}
    parts = tuple(torch.randn(3, *shape) for shape in shapes)
    before, state = copied((given, parts)), torch.random.get_rng_state()

    def apply(*parts: Tensor) -> list[Tensor]:
        out = block.apply(given, parts if len(parts) > 1 else parts[0])
        return list(out) if isinstance(out, tuple) else [out]

    block.measure(given, parts if len(parts) > 1 else parts[0])
    for whole, *each in zip(apply(*parts), *(apply(*(part[[n]] for part in parts)) for n in range(3)), strict=True):
        torch.testing.assert_close(whole, torch.cat(each), rtol=1e-5, atol=1e-6)
    assert_same_tensors((given, parts), before)
    assert torch.equal(state, torch.random.get_rng_state())
