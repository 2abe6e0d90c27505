import math
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nets.modules import SHAPE, SmallResNet, generator, seeded
from torch import Tensor

from lasem.errors import ConfigError
from lasem.nets import AbstractBlock, ConvBlock, LinearBlock, Net, cifar, cut, office_home, stl10
from lasem.sharing import Deconvolution, Kernel

from .fixture import random, start


def naive_kernel(knowledge: Tensor, own: dict[str, Tensor], sides: tuple[int, int]) -> Tensor:
    """SAME with stride 2: entry i of the knowledge spreads the filter around position 2i; then Z . U."""
    filter_ = own["filter"]
    made = own["filter_bias"][:, None, None].repeat(1, *sides)
    for i, j, a, b in product(*map(range, (*knowledge.shape[1:], *filter_.shape[2:]))):
        row, column = 2 * i + a - len(filter_[0, 0]) // 2, 2 * j + b - len(filter_[0, 0]) // 2
        if 0 <= row < sides[0] and 0 <= column < sides[1]:
            made[:, row, column] += knowledge[:, i, j] @ filter_[:, :, a, b]
    return sum(u[:, :, None, None] * z for u, z in zip(own["combine"], made, strict=True))  # type: ignore[return-value]


@pytest.mark.parametrize("filter_size", [1, 3, 5])
@pytest.mark.parametrize("block", [*(ConvBlock(2, 3, kernel) for kernel in (1, 2, 3, 4, 5, 11)), LinearBlock(6, 3)])
def test_the_kernel_is_its_definition(block: AbstractBlock, filter_size: int) -> None:
    """A linear layer is one kernel between one channel and one."""
    sharing = Deconvolution(filter_size=filter_size)
    shared, own = random(sharing.shared_shapes(block)), random(sharing.task_shapes(block))
    shape = block.shapes["weight"]
    sides = (shape[-2], shape[-1])
    assert shared["knowledge"].shape[1:] == tuple(math.ceil((side + 1) / 2) for side in sides)
    assert own["combine"].shape[1:] == (shape[:2] if len(shape) == 4 else (1, 1))
    made = sharing.weights(block, shared, own)
    torch.testing.assert_close(made["weight"], naive_kernel(shared["knowledge"], own, sides).reshape(shape))
    assert torch.equal(made["bias"], own["bias"])
    assert set(made) == {"weight", "bias"}


CIFAR6 = [(2, 16, 3, 24), (2, 24, 3, 48), (2, 32, 3, 64), (2, 36, 3, 72), (2, 64, 3, 128), (2, 72, 3, 144)]
OFFICE_HOME = [(6, 24, 3, 48), (3, 64, 3, 128), (2, 64, 3, 128), (2, 64, 3, 128)]
STL10 = [(2, 12, 3, 24), (2, 24, 3, 48), (2, 32, 3, 64), (2, 48, 3, 96), (2, 64, 3, 128), (2, 96, 3, 192)]


@pytest.mark.parametrize(
    ("net", "sizes", "table"),
    [
        (cifar(), "cifar", CIFAR6[:4]),
        (cifar(depth=6), "cifar", CIFAR6),
        (office_home(), "cifar", OFFICE_HOME),
        (office_home(), "stl-10", OFFICE_HOME),
        (stl10(), "stl-10", STL10),
    ],
)
def test_the_papers_sizes(net: Net, sizes: str, table: list[tuple[int, int, int, int]]) -> None:
    sharing = Deconvolution(sizes=sizes)  # type: ignore[arg-type]
    for block, (h, knowledge_channels, f, task_channels) in zip(net.blocks, table, strict=True):
        assert sharing.shared_shapes(block) == {"knowledge": (knowledge_channels, h, h)}
        assert block.kernel == 2 * (h - 1) + 1
        assert sharing.task_shapes(block) == {
            "filter": (knowledge_channels, task_channels, f, f),
            "filter_bias": (task_channels,),
            "combine": (task_channels, block.out_channels, block.in_channels),
            "bias": (block.out_channels,),
        }
        assert sharing.num_shared(block) == h * h * knowledge_channels < block.num_parameters


@given(st.integers(1, 6), st.integers(1, 8), st.integers(1, 8), st.sampled_from(("he", "paper")), st.integers(0, 9))
def test_a_scaled_start_has_a_plain_kernels_deviation(kernel: int, inputs: int, out: int, rule: str, seed: int) -> None:
    block: AbstractBlock
    for block in (ConvBlock(inputs, out, kernel), LinearBlock(inputs * kernel, out)):
        plain, _, _, made = start(Deconvolution(start="scaled"), block, rule, seed)
        torch.testing.assert_close(made["weight"].square().mean(), plain["weight"].square().mean(), rtol=1e-3, atol=0)


def test_a_glorot_start_is_what_tensorflow_gives_a_variable_of_that_shape() -> None:
    """Shapes (..., a, b) have a r inputs and b r outputs, r the product of the other sides; (n,) has n and n."""
    _, shared, own, _ = start(Deconvolution(start="glorot"), cifar().blocks[1], "paper")
    for value, shape in (
        (shared["knowledge"], (1, 2, 2, 24)),
        (own["filter"], (3, 3, 48, 24)),
        (own["filter_bias"], (1, 1, 1, 48)),
        (own["combine"], (48, 32, 32)),
        (own["bias"], (32,)),
    ):
        receptive = math.prod(shape[:-2])
        fans = shape[-2:] if len(shape) > 1 else shape * 2
        bound = math.sqrt(6 / (receptive * sum(fans)))
        assert value.numel() == math.prod(shape)
        assert 0.9 * bound < float(value.abs().max()) <= bound
        assert 0.75 < float(value.std()) / (bound / math.sqrt(3)) < 1.25


def test_a_pretrained_kernel_gets_as_many_channels_as_it_has_pixels() -> None:
    kernel = Kernel((64, 3, 11, 11), pretrained=True)  # the paper's Office-Home table has 48 channels for it
    assert Deconvolution()._channels(kernel)[1] >= 121
    assert Deconvolution()._channels(Kernel((64, 3, 11, 11))) == (24, 48)


@pytest.mark.parametrize("rule", ["he", "paper"])
def test_an_identity_start_is_a_plain_layers(rule: str) -> None:
    """Z is one channel a pixel, so W is U's first nine slices, and a step of U is a plain layer's step."""
    for block in cifar().blocks:
        plain, _, own, made = start(Deconvolution(), block, rule)
        slices = own["combine"][:9].permute(1, 2, 0).reshape(block.shapes["weight"])
        torch.testing.assert_close(made["weight"], slices, rtol=1e-5, atol=1e-6)
        assert torch.equal(slices, plain["weight"])


def test_steps_of_an_identity_start_are_a_plain_layers_steps() -> None:
    block, sharing = cifar().blocks[1], Deconvolution()
    _, shared, own, _ = start(sharing, block)
    own["combine"].requires_grad_()
    target = torch.randn(block.shapes["weight"], generator=generator(2))
    weight = sharing.weights(block, shared, own)["weight"]
    (weight - target).square().sum().backward()
    gradient = own["combine"].grad
    expected = 2 * (weight - target).detach().flatten(2).permute(2, 0, 1)
    torch.testing.assert_close(gradient[:9], expected, rtol=1e-4, atol=1e-4)
    assert float(gradient[9:].abs().max()) < 1e-3


def test_kernels_with_more_pixels_than_channels_start_scaled() -> None:
    block = office_home().blocks[0]  # 11 x 11 pixels, 48 channels
    identity, scaled = start(Deconvolution(start="identity"), block), start(Deconvolution(start="scaled"), block)
    assert torch.equal(identity.made["weight"], scaled.made["weight"])
    assert all(torch.equal(identity.own[name], scaled.own[name]) for name in identity.own)


PRETRAINED = cut(seeded(SmallResNet), image_shape=SHAPE).blocks[1]


@pytest.mark.parametrize("keep", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("block", [*cifar().blocks, PRETRAINED], ids=lambda block: f"pretrained-{block.pretrained}")
def test_what_was_taken_over_is_renewed_in_the_kernel(block: AbstractBlock, keep: float) -> None:
    """Towards random weights so that the deviation stays, towards pretrained ones on a straight line."""
    sharing, share = Deconvolution(), 1 - keep if block.pretrained else math.sqrt(1 - keep**2)
    _, shared, own, _ = start(sharing, block)
    own = {name: value + 0.1 * torch.randn(value.shape, generator=generator(3)) for name, value in own.items()}
    fresh = block.initial(generator(2), "paper")
    blended = sharing.blend_with_fresh(block, shared, own, fresh, keep)
    before, after = (sharing.weights(block, shared, part) for part in (own, blended))
    assert not any(value.any() for name, value in blended.items() if name.endswith("filter_bias"))
    for name, value in before.items():
        torch.testing.assert_close(after[name], keep * value + share * fresh[name], rtol=1e-3, atol=1e-4)


def test_a_pretrained_matrix_is_refused() -> None:
    kernel = Kernel((24, 8), pretrained=True)
    with pytest.raises(ConfigError, match=r"at a pretrained kernel of shape \(24, 8\): it makes 192 pixels"):
        Deconvolution().initial_task_kernel(kernel, {}, torch.randn(24, 8), generator())


def test_only_what_makes_z_takes_steps_of_its_own_size() -> None:
    sharing, block = Deconvolution(step_scale=0.2), cifar().blocks[0]
    steps = {name: sharing.step(name) for name in (*sharing.shared_shapes(block), *sharing.task_shapes(block))}
    assert steps == {"knowledge": 0.2, "filter": 0.2, "filter_bias": 0.2, "combine": 1.0, "bias": 1.0}
