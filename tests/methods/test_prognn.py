from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from learner.fixture import tiny_net
from torch import Tensor

from lasem.methods import ProgNN
from lasem.methods.model import count
from lasem.methods.plain import run
from lasem.nets import AbstractBlock, ConvBlock, LinearBlock, Net
from lasem.training import TrainingConfig
from methods.fixture import DEEP, learner_of, plain_start, seeded, setup_of

METHODS = [
    ProgNN(adapters=adapters, reduction=reduction, head_adapters=head)
    for adapters, reduction in (("joined", 1.0), ("each", 1.0), ("joined", 2.0))
    for head in ("all", "first", "none")
]


def random_columns(method: ProgNN, net: Net, num: int) -> list[dict[str, Tensor]]:
    """Columns of a stream of tasks with 2, 3, 4, ... classes, every number of them random and none of them small."""
    generator = seeded(5)
    return [
        {name: 0.7 * torch.randn(t.shape, generator=generator) for name, t in column.items()}
        for column in (method.initial(setup_of(net, k), k, k + 2) for k in range(num))
    ]


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("net", [DEEP, tiny_net(DEEP.image_shape, depth=1)], ids=["deep", "flat"])
def test_the_first_column_is_the_plain_network(method: ProgNN, net: Net) -> None:
    weights, x = method.initial(setup_of(net), 0, 4), torch.randn(3, *net.image_shape)
    assert weights.keys() == plain_start(net, 4).keys()
    assert torch.equal(method.answer(net, [], weights, x), run(net, weights, x))
    first, second = (seeded(1) for _ in range(2))
    assert torch.equal(method.answer(net, [], weights, x, first), run(net, weights, x, dropout=second))


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("with_dropout", [False, True])
def test_a_column_is_what_the_equation_says(method: ProgNN, with_dropout: bool) -> None:
    columns = random_columns(method, DEEP, 3)
    x = torch.randn(2, *DEEP.image_shape, generator=seeded(1))
    masks, dropout = [torch.ones(2, 6)] * 3, None
    if with_dropout:  # the column's own mask is drawn first, then those of the columns before it, if they are looked at
        source, dropout = seeded(8), seeded(8)
        num_drawn = 1 if method.head_adapters == "none" else 3
        drawn = [(torch.rand(2, 6, generator=source) >= 0.5) / 0.5 for _ in range(num_drawn)]
        masks = [*drawn[1:], drawn[0]] if num_drawn == 3 else [*masks[:2], drawn[0]]
    given = method.answer(DEEP, columns[:2], columns[2], x, dropout)
    assert given.shape == (2, 4)
    for n in range(2):
        expected = Naive(method, DEEP, columns, x[n].double(), [mask[n] for mask in masks]).inputs(2, 6)
        torch.testing.assert_close(given[n].double(), expected, rtol=2e-4, atol=2e-4)


class Naive:
    """Equation 2, image by image, its sums over columns and over what adapters read written out."""

    def __init__(self, method: ProgNN, net: Net, columns: Sequence[Any], x: Tensor, masks: Sequence[Tensor]) -> None:
        self.method, self.depth, self.x, self.masks = method, net.depth, x, masks
        self.columns = [{name: value.double() for name, value in column.items()} for column in columns]
        self.layers = [*net.blocks, *(LinearBlock(1, 1) for _ in (*net.hidden, "logits"))]

    def inputs(self, k: int, i: int) -> Tensor:
        """What goes into layer i of column k, the logits for i = number of layers."""
        if i == 0:
            return self.x
        z = self.linear(k, i - 1, self.inputs(k, i - 1))
        return z if i == len(self.layers) else self.layers[i - 1].reduce(z.clamp(min=0))

    def linear(self, k: int, i: int, below: Tensor) -> Tensor:
        weights = self.columns[k]
        name = f"layer.{i}.%s" if i < self.depth else f"head.%s.{i - self.depth}"
        if i == self.depth and k == 2:
            below = below * self.masks[2]
        z = self.product(i, weights[name % "weight"], below)
        z = z + weights[name % "bias"].view(-1, *[1] * (z.ndim - 1))
        last = {"all": len(self.layers), "first": self.depth + 1, "none": self.depth}[self.method.head_adapters]
        if k == 0 or i == 0 or i >= last:
            assert f"adapter.{i}.alpha" not in weights
            return z
        alpha, V, b, U = (
            weights[f"adapter.{i}.{part}"] for part in ("alpha", "reduce.weight", "reduce.bias", "lateral.weight")
        )
        seen = [alpha[j] * self.inputs(j, i) for j in range(k)]
        if i == self.depth and k == 2:
            seen = [h * self.masks[j] for j, h in enumerate(seen)]
        if isinstance(self.layers[i], LinearBlock):
            seen = [h.flatten() for h in seen]
        if self.method.adapters == "joined":
            return z + self.product(i, U, one_by_one(V, torch.cat(seen), b).clamp(min=0))
        width = len(V) // k
        for j in range(k):
            part = slice(j * width, (j + 1) * width)
            z = z + self.product(i, U[:, part], one_by_one(V[part], seen[j], b[part]).clamp(min=0))
        return z

    def product(self, i: int, weight: Tensor, x: Tensor) -> Tensor:
        """What tests/nets/test_block.py checks against its definition."""
        return self.layers[i].preactivate({"weight": weight}, x[None])[0]


def one_by_one(weight: Tensor, x: Tensor, bias: Tensor) -> Tensor:
    out = torch.zeros(len(weight), *x.shape[1:], dtype=x.dtype)
    for o in range(len(weight)):
        out[o] = bias[o] + sum(weight[o, c].squeeze() * x[c] for c in range(len(x)))
    return out


@pytest.mark.parametrize("method", METHODS[:4:3], ids=str)
def test_alphas_of_zero_cut_a_column_off(method: ProgNN) -> None:
    columns = random_columns(method, DEEP, 2)
    fresh = method.initial(setup_of(DEEP, 2), 2, 3)
    cut_off = {name: torch.zeros_like(t) if name.endswith("alpha") else t for name, t in fresh.items()}
    x = torch.randn(4, *DEEP.image_shape)
    torch.testing.assert_close(method.answer(DEEP, columns, cut_off, x), run(DEEP, cut_off, x))
    assert not torch.allclose(method.answer(DEEP, columns, fresh, x), run(DEEP, fresh, x))


def test_alphas_start_small_random_and_cut() -> None:
    method = ProgNN(alpha_start=0.05)
    alphas = [
        alpha
        for k in range(1, 40)
        for name, alpha in method.initial(setup_of(tiny_net(), k), k, 2).items()
        if name.endswith("alpha")
    ]
    assert [len(alpha) for alpha in alphas[:6]] == [1, 1, 1, 2, 2, 2]  # second convolution, both layers of the head
    every = torch.cat(alphas)
    assert float(every.abs().max()) <= 0.1
    assert len(every.unique()) > 0.99 * len(every)
    assert float(every.std()) == pytest.approx(0.044, abs=0.003)  # of a normal that is cut at twice its deviation, .88
    assert abs(float(every.mean())) < 0.004


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_earlier_columns_get_no_gradient_and_the_new_one_does_everywhere(method: ProgNN) -> None:
    # of positive numbers alone: no unit is silent
    columns = [
        {name: value.abs().requires_grad_(True) for name, value in column.items()}
        for column in random_columns(method, DEEP, 3)
    ]
    x = torch.rand(4, *DEEP.image_shape)
    method.answer(DEEP, columns[:2], columns[2], x).square().sum().backward()
    assert all(value.grad is None for column in columns[:2] for value in column.values())
    for name, value in columns[2].items():
        assert value.grad is not None, name
        assert bool((value.grad != 0).any()), name


def test_everything_of_the_new_column_is_trained_from_its_own_start() -> None:
    method, net = ProgNN(), tiny_net()
    training = TrainingConfig(epochs=6, batch_size=5, learning_rate=0.01, restore_best=False)
    model = learner_of(method, net, 3, training=training).model
    assert model.shared == {}
    for k in range(3):
        start = method.initial(setup_of(net, k), k, 2 + k % 2)
        assert start.keys() == model.own[f"t{k}"].keys()
        for name, value in model.own[f"t{k}"].items():
            assert not torch.equal(value, start[name]), name
    first, second = (method.initial(setup_of(net, k), 0, 2) for k in range(2))
    assert not torch.equal(first["layer.0.weight"], second["layer.0.weight"])


def adapter_size(method: ProgNN, block: AbstractBlock, num_columns: int) -> int:
    """Numbers in one layer's adapters, from the settings."""
    num_out, num_in = block.shapes["weight"][:2]
    area = int(np.prod(block.shapes["weight"][2:]))
    full = num_in if isinstance(block, ConvBlock) else min(num_in, num_out)
    if method.adapters == "joined":
        width = max(1, int(full / method.reduction))
        return num_columns + width * num_columns * num_in + width + num_out * width * area
    width = max(1, int(full / (method.reduction * (num_columns + 1))))
    return num_columns * (1 + width * num_in + width + num_out * width * area)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_parameters_are_a_column_and_its_adapters(method: ProgNN) -> None:
    head = [LinearBlock(6, 5), LinearBlock(5, 3), LinearBlock(3, 4)]
    adapted = [*DEEP.blocks[1:], *{"all": head, "first": head[:1], "none": []}[method.head_adapters]]
    plain = sum(block.num_parameters for block in (*DEEP.blocks, *head))
    sizes = []
    for num_columns in range(8):
        expected = plain + (num_columns > 0) * sum(adapter_size(method, block, num_columns) for block in adapted)
        sizes.append(count(method.initial(setup_of(DEEP, num_columns), num_columns, 4)))
        assert sizes[-1] == expected
    if method.adapters == "joined":  # every column is larger than the one before by the same: O(T^2) in all
        assert len(set(np.diff(sizes[1:]))) == 1
        assert sizes[2] > sizes[1]


def test_widths() -> None:
    convolution, wide, narrow = ConvBlock(12, 40, 3), LinearBlock(4096, 64), LinearBlock(8, 100)
    assert [ProgNN().width(block, 5) for block in (convolution, wide, narrow)] == [12, 64, 8]
    assert [ProgNN(reduction=3).width(block, 5) for block in (convolution, wide, narrow)] == [4, 21, 2]
    each = ProgNN(adapters="each", reduction=2)
    assert [each.width(convolution, num) for num in (1, 2, 3, 5, 6, 60)] == [3, 2, 1, 1, 1, 1]
    for method in (each, ProgNN(reduction=1000)):  # too narrow for even one channel
        fresh = method.initial(setup_of(DEEP, 9), 9, 2)
        answer = method.answer(DEEP, random_columns(method, DEEP, 9), fresh, torch.randn(1, *DEEP.image_shape))
        assert answer.shape == (1, 2)
