"""The residual network against the same one written as torch modules, and against each configuration alone."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from learner.fixture import SHARINGS, copied, start_of, tiny_net, tiny_task
from sharing.fixture import random
from torch import Tensor
from training.fixture import random_weights

from lasem.errors import StorageError
from lasem.experiments.parts import NetChoice
from lasem.learner import Learner
from lasem.nets import ClosingBlock, ConvBlock, OpeningBlock, ResNet, padded_resnet, rebuild, resnet
from lasem.search import EM, Fixed, Mixture
from lasem.sharing import AbstractSharing, Deconvolution
from lasem.space import full, grouped
from lasem.training import TaskWeights

from .modules import assert_goes_on_after_loading, assert_same_with_gradients, features, generator

SMALL = ResNet(image_shape=(2, 9, 7), channels=(3, 4), stem_kernel=5, hidden=(6,), dropout=0.0)
GROUPS = {
    "4G": (5, 4, 4, 4),
    "5G": (5, 4, 4, 2, 2),
    "6G": (5, 4, 2, 2, 2, 2),
    "7G": (5, 2, 2, 2, 2, 2, 2),
    "8G": (3, 2, 2, 2, 2, 2, 2, 2),
}


def naive(net: ResNet, kernels: list[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    """Features, as one would write the network down without blocks."""
    pairs = iter(kernels)
    if net.form == "paper":
        return naive_paper(net, pairs, x)
    x = F.max_pool2d(F.relu(F.conv2d(x, *next(pairs), padding=net.stem_kernel // 2)), 2, ceil_mode=True)
    for stage, width in enumerate(net.channels):
        for _ in range(net.blocks_per_stage):
            inside = F.relu(F.conv2d(x, *next(pairs), padding=1))
            out = F.conv2d(inside, *next(pairs), padding=1)
            x = F.relu(out + torch.cat([x, torch.zeros_like(out[:, : width - x.shape[1]])], dim=1))
        if stage < len(net.channels) - 1:
            x = F.max_pool2d(x, 2, ceil_mode=True)
    return x


def naive_paper(net: ResNet, pairs: Iterator[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    """As the authors' program lists it: where it pools, and from which to which convolution its skips reach."""
    num, per_stage = net.depth, 2 * net.blocks_per_stage
    pooled = {0, *range(1 + per_stage, num, per_stage)}
    skips = {first + 1: first for first in range(1, num, 2) if first not in pooled}
    inputs = []
    for i, (weight, bias) in enumerate(pairs):
        inputs.append(x)
        x = F.relu(F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2))
        if i in skips:
            x = x + inputs[skips[i]]
        if i in pooled:
            x = F.max_pool2d(x, 2, ceil_mode=True)
    if net == replace(resnet(), image_shape=net.image_shape):
        assert pooled == {0, 5, 9, 13}
        assert skips == {2: 1, 4: 3, 8: 7, 12: 11, 16: 15}
    return x


@pytest.mark.parametrize("net", [resnet(), padded_resnet()], ids=["paper", "padded"])
def test_it_has_the_papers_17_convolutions(net: ResNet) -> None:
    assert net.depth == 17
    with_skip = [OpeningBlock, ClosingBlock]
    later_stage = with_skip * 2 if net.form == "padded" else [ConvBlock, ConvBlock, *with_skip]
    assert [type(block) for block in net.blocks] == [ConvBlock, *with_skip * 2, *later_stage * 3]
    shapes = [block.shapes["weight"] for block in net.blocks]
    assert shapes[0] == (64, 3, 7, 7)
    assert [shape[0] for shape in shapes[1:]] == [64] * 4 + [128] * 4 + [256] * 4 + [512] * 4
    assert all(shape[1] == before[0] for before, shape in pairwise(shapes))
    assert net.head.shapes(10) == {
        "weight.0": (1000, 512 * 2 * 2),
        "bias.0": (1000,),
        "weight.1": (10, 1000),
        "bias.1": (10,),
    }


@pytest.mark.parametrize(
    "net",
    [
        SMALL,
        replace(SMALL, channels=(2, 2, 5), blocks_per_stage=1),
        replace(SMALL, form="paper"),
        replace(resnet(), image_shape=(3, 8, 8)),
    ],
    ids=["two", "three", "paper", "paper-17"],
)
def test_it_is_the_network_written_down_forward_and_backward(net: ResNet) -> None:
    scale = 0.4 if net.depth < 17 else 0.04
    weights = [
        {k: (scale * v).requires_grad_() for k, v in random(b.shapes, seed=7 * i).items()}
        for i, b in enumerate(net.blocks)
    ]
    x = torch.randn(3, *net.image_shape, dtype=torch.float64, generator=generator())
    value = features(net, x, weights)
    expected = naive(net, [(own["weight"], own["bias"]) for own in weights], x).flatten(1)
    assert expected.shape[1] == net.head.in_features
    leaves = [tensor for own in weights for tensor in own.values()]
    assert_same_with_gradients(value, expected, leaves, leaves)


@pytest.mark.parametrize("form", ["padded", "paper"])
@pytest.mark.parametrize("sharing", SHARINGS, ids=lambda sharing: sharing.name)
def test_every_configuration_in_the_tree_is_that_configuration_alone(sharing: AbstractSharing, form: Any) -> None:
    net = replace(SMALL, blocks_per_stage=1, form=form)  # 5 convolutions: choices also change inside residual blocks
    space = full(net.depth)
    weights = copied(random_weights(net, sharing, tuple(space), 3, torch.float64), requires_grad=True)
    x = torch.randn(2, *net.image_shape, dtype=torch.float64, generator=generator(1))
    mixture = Mixture(net, sharing, tuple(space))
    together = mixture.tree.in_order(mixture.features(weights, x).unflatten(0, (len(space), -1)))
    for value, configuration in zip(together, space, strict=True):
        made = [
            sharing.weights(block, own.shared, own.factors) if transferred else own.specific
            for block, own, transferred in zip(net.blocks, weights.layers, configuration, strict=True)
        ]
        alone = naive(net, [(own["weight"], own["bias"]) for own in made], x)
        torch.testing.assert_close(value, alone, rtol=0, atol=1e-11)


@pytest.mark.parametrize("sizes", GROUPS.values(), ids=GROUPS)
def test_the_papers_groups_fit_and_end_between_residual_blocks(sizes: tuple[int, ...]) -> None:
    space = EM(groups=sizes).space(17, 1)
    assert (len(space), space) == (2 ** len(sizes), grouped(sizes))
    for border in list(accumulate(sizes))[:-1]:
        assert isinstance(padded_resnet().blocks[border - 1], ClosingBlock)
        assert not isinstance(resnet().blocks[border - 1], OpeningBlock)


def test_it_is_learned_saved_and_learned_on(tmp_path: Any) -> None:
    net = ResNet(image_shape=(1, 6, 6), channels=(2, 3), blocks_per_stage=1, stem_kernel=3, hidden=(4,))
    given = {"sharing": Deconvolution(), "search": EM(groups=(3, 2))}
    whole = assert_goes_on_after_loading(lambda: net, tmp_path, give=False, **given)
    assert str(whole.learn(tiny_task("d")).configuration) in ("SSSSS", "SSSTT", "TTTSS", "TTTTT")


@pytest.mark.parametrize("build", [resnet, padded_resnet])
def test_a_deep_networks_outputs_keep_their_size_at_the_start(build: Any) -> None:
    learner = Learner(build((1, 16, 16)), search=Fixed("all"))
    task = tiny_task(shape=(1, 16, 16))
    weights: TaskWeights = start_of(learner, task).weights
    x, _ = next(iter(task.train.batches(10, device=torch.device("cpu"))))
    space = tuple(learner.method.search.space(17, 0))
    found = Mixture(learner.net, learner.method.sharing, space).features(weights, x)
    assert 0.3 < float(found.square().mean().sqrt()) < 5


def test_deconvolution_keeps_a_tasks_part_of_wide_layers_within_bounds() -> None:
    net, sharing = resnet(), Deconvolution()
    owned = [sharing.num_owned(block, transferred=True) for block in net.blocks]
    assert max(owned) < 9_000_000  # the rule for c_ts alone would have 201 million numbers in one layer
    for block in net.blocks[1:]:  # and a kernel can still be any kernel
        assert sharing.task_shapes(block)["filter_bias"][0] >= 9


def test_a_description_builds_it_again_and_a_choice_names_it() -> None:
    assert rebuild(SMALL.description()) == SMALL
    assert rebuild(resnet().description()) == resnet() != padded_resnet()
    assert NetChoice(name="resnet", hidden=(5,), dropout=0.1)((1, 8, 8)) == replace(
        resnet((1, 8, 8)), hidden=(5,), dropout=0.1
    )


@pytest.mark.parametrize("net", [padded_resnet(), tiny_net()], ids=["resnet", "plain"])
def test_a_description_of_an_earlier_version_is_the_network_that_it_was(net: ResNet) -> None:
    """It has no ``form``, for all residual networks were what is now called padded, and no ``pool_border``."""
    assert not {"form", "pool_border"} & set(net.description())
    assert rebuild(net.description()) == rebuild(net.description(), net) == net
    with pytest.raises(StorageError, match=r"another network \(pool_border: none, got both\)"):
        rebuild(net.description(), replace(net, pool_border="both"))
