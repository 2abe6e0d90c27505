"""Heads, and the weights that all networks start from."""

import math

import pytest
import torch

from lasem.nets import Head
from lasem.nets.block import glorot_uniform, initial_bias, initial_weight

from .modules import generator


@pytest.mark.parametrize("hidden", [(), (5,), (5, 4)])
def test_logits_are_matrix_products_with_relu_between(hidden: tuple[int, ...]) -> None:
    head = Head(12, hidden, 0.5)
    weights = head.initial(3, generator(), "paper")
    assert {k: tuple(v.shape) for k, v in weights.items()} == head.shapes(3)
    x = torch.randn(7, 3, 2, 2, generator=generator(1))
    out = x.reshape(7, 12)
    for i in range(len(hidden) + 1):
        out = out @ weights[f"weight.{i}"].T + weights[f"bias.{i}"]
        out = out.clamp_min(0) if i < len(hidden) else out
    torch.testing.assert_close(head.apply(weights, x), out)
    assert out.shape == (7, 3)


def identity(size: int) -> dict[str, torch.Tensor]:
    return {"weight.0": torch.eye(size), "bias.0": torch.zeros(size)}


def test_dropout_happens_only_where_a_generator_is_given() -> None:
    head, x = Head(50, (), 0.5), torch.randn(8, 50)
    before = torch.random.get_rng_state()
    assert torch.equal(head.apply(identity(50), x), x)
    dropped = head.apply(identity(50), x, generator(3))
    assert torch.equal(dropped, head.apply(identity(50), x, generator(3)))
    assert not torch.equal(dropped, head.apply(identity(50), x, generator(4)))
    assert torch.equal(torch.random.get_rng_state(), before)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], 2 * x[kept])
    assert torch.equal(Head(50, (), 0.0).apply(identity(50), x, generator()), x)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_dropout_is_unbiased(rate: float) -> None:
    count, x = 20_000, torch.tensor([[1.0, -2.0, 3.0]])
    out = Head(3, (), rate).apply(identity(3), x.expand(count, 3), generator())
    spread = (rate / (1 - rate) / count) ** 0.5
    assert bool(((out.mean(dim=0) / x[0] - 1).abs() < 5 * spread).all())
    assert bool((((out == 0).double().mean(dim=0) - rate).abs() < 0.02).all())


def test_the_papers_weights_are_a_normal_cut_at_two_deviations() -> None:
    weight = initial_weight((100, 100, 3, 3), generator(), "paper")
    assert 0.0999 < float(weight.abs().max()) <= 0.1
    cut = 2 * math.exp(-2) * 2 / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2))  # variance lost by cutting at 2
    assert math.isclose(float(weight.std()), 0.05 * math.sqrt(1 - cut), rel_tol=0.01)
    assert abs(float(weight.mean())) < 5e-4
    assert torch.equal(initial_bias(3, "paper"), torch.full((3,), 0.2))


def test_he_weights_have_a_variance_of_two_over_the_inputs() -> None:
    weight = initial_weight((200, 50, 3, 3), generator(), "he")
    assert math.isclose(float(weight.var()), 2 / (50 * 9), rel_tol=0.02)
    assert torch.equal(initial_bias(3, "he"), torch.zeros(3))


def test_glorot_is_uniform_between_its_bounds() -> None:
    values = glorot_uniform((300, 300), 20, 30, generator())
    assert float(values.abs().max()) <= math.sqrt(6 / 50)
    assert math.isclose(float(values.var()), 2 / 50, rel_tol=0.02)
