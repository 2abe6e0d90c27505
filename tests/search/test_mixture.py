"""The tree against evaluating each configuration alone: the paper's equations, written as plain loops."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from learner.fixture import copied, every_sharing, tiny_net
from torch import Tensor
from training.fixture import NEVER, loop_of, random_weights, start_with

from lasem.nets import Net
from lasem.search import EM, DeepEM, DeepEMState, Mixture, MixturePhase, evaluate, log_likelihood
from lasem.sharing import AbstractSharing, Deconvolution, HardSharing, TensorFactorization
from lasem.space import Configuration, Space, factorised, full, grouped, listed
from lasem.training import Batch, TaskWeights
from lasem.tree import named

NUM_CLASSES = 3
SHAPE = (2, 5, 4)
EVEN = (0.5, 0.5)
CASES: list[tuple[Net, Space]] = [
    *((tiny_net(SHAPE, depth, dropout=0), full(depth)) for depth in range(1, 7)),
    (tiny_net(SHAPE, 2, linear=(6,), dropout=0), full(3)),
    (tiny_net(SHAPE, 3, linear=(6, 4), dropout=0), grouped((2, 1, 2))),
    (tiny_net(SHAPE, 1, linear=(4, 3), dropout=0), listed(["TST", "SST", "STT", "SSS"])),
    (tiny_net(SHAPE, 4, dropout=0), listed(["TSST", "TTST", "TSSS"])),
    (tiny_net(SHAPE, 4, dropout=0), listed(["TTTT", "SSSS"])),
    (tiny_net(SHAPE, 3, dropout=0), listed(["STS"])),
]
every_case = pytest.mark.parametrize(("net", "space"), CASES, ids=[f"{n.depth}-{len(s)}" for n, s in CASES])


def alone(net: Net, sharing: AbstractSharing, weights: TaskWeights, configuration: Configuration, x: Tensor) -> Tensor:
    """Logits (batch, num_classes) of one configuration."""
    for block, own, transferred in zip(net.blocks, weights.layers, configuration, strict=True):
        x = block.apply(sharing.weights(block, own.shared, own.factors) if transferred else own.specific, x)
    hidden = (x.flatten(1) @ weights.head["weight.0"].T + weights.head["bias.0"]).clamp_min(0)
    return hidden @ weights.head["weight.1"].T + weights.head["bias.1"]


def penalty_alone(sharing: AbstractSharing, weights: TaskWeights, configuration: Configuration) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    if isinstance(sharing, TensorFactorization):
        for own, transferred in zip(weights.layers, configuration, strict=True):
            for name, factor in own.factors.items():
                if transferred and name.startswith("factor"):
                    gap = factor.T @ factor - torch.eye(factor.shape[1], dtype=torch.float64)
                    total = total + sharing.penalty_weight * gap.norm()
    return total


def naive_loss(phase: Any, weights: Any, space: Space, prior: Any, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Log-likelihoods (C, batch), and sum_c q_c (CE_c + penalty_c), q_c ~ prior_c prod_n p(y_n | x_n, c)."""
    net, sharing, rows = phase.start.net, phase.start.sharing, []
    for configuration in space:
        probabilities = alone(net, sharing, weights, configuration, x).softmax(dim=1)
        rows.append(torch.stack([probabilities[n, label] for n, label in enumerate(labels.tolist())]).log())
    joint = [p * row.sum().exp().item() for p, row in zip(prior, rows, strict=True)]
    loss = torch.zeros((), dtype=torch.float64)
    for configuration, value, row in zip(space, joint, rows, strict=True):
        loss = loss + value / sum(joint) * (penalty_alone(sharing, weights, configuration) - row.mean())
    return torch.stack(rows), loss


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(8)
    return torch.randn(4, *SHAPE, dtype=torch.float64, generator=generator), torch.tensor([0, 2, 1, 2])


def loss_of(phase: MixturePhase[Any], weights: TaskWeights, x: Tensor, labels: Tensor) -> Tensor:
    return phase.loss(weights, Batch(x, labels, "task"), torch.Generator().manual_seed(2))


def exact_weights(net: Net, sharing: AbstractSharing, space: Space) -> TaskWeights:
    return copied(random_weights(net, sharing, tuple(space), NUM_CLASSES, torch.float64), requires_grad=True)


def check_loss(phase: MixturePhase[Any], weights: TaskWeights, space: Space, prior: list[float]) -> Tensor:
    """The loss and its gradients against those of every configuration alone; the naive log-likelihoods."""
    (x, labels), leaves = batch(), named(weights)
    likelihoods, expected = naive_loss(phase, weights, space, prior, x, labels)
    loss = loss_of(phase, weights, x, labels)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-10)
    naive, found = (torch.autograd.grad(value, list(leaves.values())) for value in (expected, loss))
    for name, one, other in zip(leaves, found, naive, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10, msg=name)
    return likelihoods


@every_sharing
@every_case
def test_the_tree_is_every_configuration_alone(net: Net, space: Space, sharing: AbstractSharing) -> None:
    search, weights, (x, labels) = EM(prior_start=EVEN, **NEVER), exact_weights(net, sharing, space), batch()
    phase = loop_of(net, sharing, search, space, dtype=torch.float64).phase
    phase.search_state = torch.rand(len(space), dtype=torch.float64, generator=torch.Generator().manual_seed(2)) + 0.5
    found = log_likelihood(evaluate(Mixture(net, sharing, tuple(space)), weights, x), labels)
    likelihoods = check_loss(phase, weights, space, search.prior(phase.search_state).tolist())
    torch.testing.assert_close(found, likelihoods, rtol=0, atol=1e-10)


@every_sharing
def test_a_deep_search_that_draws_all_configurations_is_the_exact_factorised_one(sharing: AbstractSharing) -> None:
    net, search = tiny_net(SHAPE, 4, dropout=0), DeepEM(num_samples=16, **NEVER)
    start = start_with(net, sharing, full(4), dtype=torch.float64)
    phase = MixturePhase(search, replace(start, space=factorised((1,) * 4)))
    mass = 1 + torch.rand(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    phase.search_state = DeepEMState(mass)
    transfers = (mass[:, 1] / mass.sum(dim=1)).tolist()
    prior = [math.prod(p if bit else 1 - p for p, bit in zip(transfers, c.bits, strict=True)) for c in full(4)]
    check_loss(phase, exact_weights(net, sharing, full(4)), full(4), prior)


@every_sharing
def test_the_posterior_is_held_constant(sharing: AbstractSharing) -> None:
    """The gradient is that of a weighted sum, not of the marginal likelihood's weights too."""
    net, space, (x, labels) = tiny_net(SHAPE, 2, dropout=0), full(2), batch()
    phase = loop_of(net, sharing, EM(prior_start=EVEN, **NEVER), space, dtype=torch.float64).phase
    weights = exact_weights(net, sharing, space)
    evidence = log_likelihood(evaluate(Mixture(net, sharing, tuple(space)), weights, x), labels)
    loss_of(phase, weights, x, labels).backward()
    expected = torch.zeros(NUM_CLASSES, dtype=torch.float64)
    for weight, configuration in zip(evidence.sum(dim=1).softmax(dim=0), space, strict=True):
        logits = alone(net, sharing, weights, configuration, x).detach()
        for n, label in enumerate(labels.tolist()):
            expected += weight * (logits[n].softmax(dim=0) - torch.eye(NUM_CLASSES)[label]) / len(labels)
    torch.testing.assert_close(weights.head["bias.1"].grad, expected, rtol=0, atol=1e-10)


def test_dropout_is_off_in_the_e_step_and_on_in_the_m_step() -> None:
    net, space, (x, labels) = tiny_net(SHAPE, 2, dropout=0.9), full(2), batch()
    search = EM(first_task="search", prior_form="average")
    phase = loop_of(net, HardSharing(), search, space, dtype=torch.float64).phase
    weights = exact_weights(net, HardSharing(), space)
    evidence = log_likelihood(evaluate(Mixture(net, HardSharing(), tuple(space)), weights, x), labels)
    posterior, state = search.step(phase.search_state, evidence)
    loss = loss_of(phase, weights, x, labels)
    torch.testing.assert_close(phase.search_state, state, rtol=0, atol=1e-12)
    without_dropout = -(posterior @ evidence.mean(dim=1))
    assert abs(loss.item() - without_dropout.item()) > 1e-3


def test_a_weight_of_zero_adds_no_penalty() -> None:
    net, space = tiny_net(SHAPE, 2), full(2)
    for sharing in (HardSharing(), Deconvolution(), TensorFactorization(penalty_weight=0)):
        weights = random_weights(net, sharing, tuple(space), NUM_CLASSES, torch.float64)
        assert Mixture(net, sharing, tuple(space)).penalty(weights, torch.full((4,), 0.25)) is None
