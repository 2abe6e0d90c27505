import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lasem.training import RMSpropTF, TrainingConfig, build_optimiser, learning_rate
from lasem.training.config import OPTIMISERS


@given(st.floats(1e-4, 1), st.floats(0, 0.99), st.sampled_from((1e-10, 1e-3)), st.sampled_from((0.0, 0.1)))
def test_rmsprop_tf_is_its_definition(lr: float, decay: float, eps: float, weight_decay: float) -> None:
    rng = np.random.default_rng(0)
    w = rng.normal(size=(3, 2))
    parameter, unused, second = (torch.tensor(x, requires_grad=True) for x in (w, np.ones(2), w))
    optimiser = RMSpropTF([parameter, unused, second], lr=lr, decay=decay, eps=eps, weight_decay=weight_decay)
    mean_square = np.ones_like(w)
    for _ in range(5):
        gradient = rng.normal(size=w.shape)
        parameter.grad, second.grad = torch.tensor(gradient), torch.tensor(gradient)
        optimiser.step()
        total = gradient + weight_decay * w
        mean_square = decay * mean_square + (1 - decay) * total**2
        w = w - lr * total / np.sqrt(mean_square + eps)
        np.testing.assert_allclose(parameter.detach().numpy(), w, rtol=1e-10, atol=1e-12)
    assert torch.equal(parameter, second)
    assert torch.equal(unused, torch.ones(2, dtype=torch.float64))


def test_its_first_step_is_what_tensorflow_1_takes() -> None:
    """g = 1: the accumulator is .9 * 1 + .1 * 1 = 1, so the step is the learning rate; torch's own: 3.2 times it."""
    parameter = torch.zeros(1, requires_grad=True)
    optimiser = build_optimiser([(parameter, 1.0)], TrainingConfig(optimiser="rmsprop-tf", learning_rate=0.01))
    parameter.grad = torch.ones(1)
    optimiser.step()
    assert math.isclose(parameter.item(), -0.01, rel_tol=1e-6)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_name_makes_an_optimiser_that_goes_downhill(name: str) -> None:
    parameter = torch.tensor([3.0, -2.0], requires_grad=True)
    config = TrainingConfig(optimiser=name, learning_rate=0.05)  # type: ignore[arg-type]
    optimiser = build_optimiser([(parameter, 1.0)], config)
    before = parameter.square().sum().item()
    for _ in range(5):
        optimiser.zero_grad()
        parameter.square().sum().backward()
        optimiser.step()
    assert parameter.square().sum().item() < before
    assert optimiser.param_groups[0]["lr"] == 0.05


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_takes_weights_whose_first_gradient_comes_late(momentum: float) -> None:
    """As those of a layer that the first mini-batch's configurations do not use."""
    start = {"early": [1.0, 2.0], "late": [3.0, -4.0]}
    weights = {name: torch.tensor(values, requires_grad=True) for name, values in start.items()}
    config = TrainingConfig(optimiser="sgd", momentum=momentum, learning_rate=0.1)
    optimiser = build_optimiser([(weight, 1.0) for weight in weights.values()], config)
    expected = {name: np.array(values) for name, values in start.items()}
    velocity = {name: np.zeros(2) for name in start}
    for moved in (["early"], ["early", "late"], ["late"], ["late", "early"]):
        optimiser.zero_grad(set_to_none=True)
        torch.stack([weights[name].square().sum() for name in moved]).sum().backward()
        optimiser.step()
        for name in moved:
            velocity[name] = momentum * velocity[name] + 2 * expected[name]
            expected[name] = expected[name] - 0.1 * velocity[name]
    for name, weight in weights.items():
        np.testing.assert_allclose(weight.detach().numpy(), expected[name], rtol=1e-6)


@given(st.integers(1, 50), st.integers(0, 500), st.floats(1e-6, 1), st.floats(0, 0.1))
def test_schedules_are_their_formulas(epochs: int, before: int, lr: float, decay: float) -> None:
    for epoch in range(epochs):
        for schedule, expected in (
            ("constant", lr),
            ("cosine", lr * (1 + math.cos(math.pi * epoch / epochs)) / 2),
            ("inverse", lr / (1 + (before + epoch) * decay)),
        ):
            config = TrainingConfig(
                epochs=epochs,
                learning_rate=lr,
                schedule=schedule,  # type: ignore[arg-type]
                learning_rate_decay=decay,
            )
            assert math.isclose(learning_rate(config, epoch, before), expected, rel_tol=1e-12)
