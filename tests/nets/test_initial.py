from __future__ import annotations

import math

import torch

from lasem.nets.initial import glorot_uniform, initial_bias, initial_weight


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_papers_weights_are_a_normal_cut_at_two_deviations() -> None:
    weight = initial_weight((100, 100, 3, 3), generator(), "paper")
    assert float(weight.abs().max()) <= 0.1
    assert float(weight.abs().max()) > 0.0999
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
    bound = math.sqrt(6 / 50)
    assert float(values.abs().max()) <= bound
    assert math.isclose(float(values.var()), 2 / 50, rel_tol=0.02)


def test_the_generator_decides_and_nothing_else() -> None:
    for rule in ("he", "paper"):
        torch.manual_seed(1)
        first = initial_weight((4, 3), generator(7), rule)
        state = torch.random.get_rng_state()
        torch.manual_seed(2)
        assert torch.equal(first, initial_weight((4, 3), generator(7), rule))
        torch.manual_seed(1)
        assert torch.equal(state, torch.random.get_rng_state())
