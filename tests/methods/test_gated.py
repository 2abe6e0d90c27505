import math
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from learner.fixture import tiny_task
from torch import Tensor

from lasem.methods import AbstractMethod, ChannelGated, LasemChannelGated, Model
from lasem.methods.gates import channels, decided, firing_rates, frozen_numbers, mean_open, run_gated, straight_through
from lasem.methods.plain import initial_layers
from lasem.nets import Net
from lasem.training import AbstractPhase, Batch, Step, TrainingConfig, part_of
from methods.fixture import CPU, NETS, batch_of, every_net, learner_of, plain_start, seeded, setup_of

NET = NETS[1]
TRAINING = TrainingConfig(epochs=4, batch_size=5, learning_rate=0.02)
SPARSE = ChannelGated(sparsity=4.0, dense_share=0.0, opening=0.0, gate_step=1.0)


def images(num: int = 6) -> Tensor:
    return torch.randn(num, 1, 6, 6, generator=seeded(2), dtype=torch.float64)


def weights_of(net: Net, method: ChannelGated | LasemChannelGated) -> dict[str, Tensor]:
    """In float64, with gates whose normalisation is not the identity."""
    generator, weights = seeded(1), plain_start(net) | method.initial_gates(setup_of(net))
    return {name: v.double() + 0.3 * torch.rand(v.shape, generator=generator).double() for name, v in weights.items()}


def naive_layer(net: Net, weights: dict[str, Tensor], i: int, x: Tensor, factors: Tensor) -> Tensor:
    """A layer's output with every channel of every image multiplied by its factor."""
    out = net.blocks[i].apply(part_of(weights, f"layer.{i}"), x)
    for b, k in product(*map(range, factors.shape)):
        out[b, k] = out[b, k] * factors[b, k]
    return out


def naive_hidden(weights: dict[str, Tensor], i: int, x: Tensor) -> Tensor:
    pooled = x.reshape(*x.shape[:2], -1).sum(dim=2) / x[0, 0].numel()  # one number is its own mean
    return (pooled[:, None, :] * weights[f"gate.{i}.weight.0"]).sum(dim=2)


def naive_logits(weights: dict[str, Tensor], i: int, hidden: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    scale, shift, weight, bias = (weights[f"gate.{i}.{name}"] for name in ("scale", "shift", "weight.1", "bias.1"))
    active = ((hidden - mean) / (variance + 1e-5).sqrt() * scale + shift).clamp(min=0)
    return (active[:, None, :] * weight).sum(dim=2) + bias


@every_net
def test_gates_go_by_the_pooled_input_and_switch_channels(net: Net) -> None:
    weights = weights_of(net, ChannelGated(opening=0.0))
    x = images()
    logits, factors = run_gated(net, weights, x, decided(weights))
    for i in range(net.depth):
        mean, variance = (weights[f"gate.{i}.{name}"] for name in ("mean", "variance"))
        expected = (naive_logits(weights, i, naive_hidden(weights, i, x), mean, variance) > 0).double()
        assert torch.equal(factors[i], expected)
        x = naive_layer(net, weights, i, x, expected)
    torch.testing.assert_close(logits, net.head.apply(part_of(weights, "head"), x))
    assert 0 < torch.cat(factors, dim=1).mean() < 1
    assert [factor.shape[1] for factor in factors] == [outputs for _, outputs in channels(net)]


def first_phase(net: Net, method: AbstractMethod, *, double: bool = False) -> tuple[AbstractPhase, Batch]:
    phase = next(method.plan(Model(), tiny_task(num_classes=3), setup_of(net, training=TRAINING)))
    return phase, batch_of(phase, double=double)


@every_net
def test_the_loss_in_training(net: Net) -> None:
    """Logistic noise, moments of the batch, hard gates, and the sparsity term once it has set in."""
    method = ChannelGated(sparsity=2.0, dense_share=0.5, opening=0.0)
    phase, batch = first_phase(net, method, double=True)
    weights = weights_of(net, method)
    draws, x, open_shares = seeded(3), batch.x, []
    for i in range(net.depth):
        hidden = naive_hidden(weights, i, x)
        mean = hidden.mean(dim=0)
        logits = naive_logits(weights, i, hidden, mean, (hidden - mean).square().mean(dim=0))
        uniform = torch.rand(logits.shape, generator=draws).double()
        factors = (logits + uniform.log() - (1 - uniform).log() > 0).double()
        open_shares.append(float(factors.sum()) / factors.numel())
        x = naive_layer(net, weights, i, x, factors)
    cross_entropy = float(F.cross_entropy(net.head.apply(part_of(weights, "head"), x, draws), batch.labels))
    for epoch, sparse in ((0, False), (1, False), (2, True), (3, True)):  # half of four epochs without the term
        phase.begin_epoch(weights, epoch, 0.1)
        loss = float(phase.loss(weights, batch, seeded(3)))
        expected = cross_entropy + sparse * 2.0 * sum(open_shares) / len(open_shares)
        assert loss == pytest.approx(expected, rel=1e-6)
    assert 0 < sum(open_shares) < net.depth


def test_the_running_moments_are_those_of_batch_normalisation() -> None:
    net = NETS[0]
    phase, batch = first_phase(net, ChannelGated())
    weights = {name: value.clone() for name, value in phase.initial().items()}
    norm = torch.nn.BatchNorm1d(16)
    for number in range(3):
        part = batch._replace(x=batch.x + number)
        phase.loss(weights, part, seeded(3))
        phase.after_step(weights, Step(0, number, 3, 0.1))
        norm(part.x.mean(dim=(2, 3)) @ weights["gate.0.weight.0"].T)
    torch.testing.assert_close(weights["gate.0.mean"], norm.running_mean)
    torch.testing.assert_close(weights["gate.0.variance"], norm.running_var)
    one = batch._replace(x=batch.x[:1], labels=batch.labels[:1])  # a last batch may hold one image
    assert phase.loss(weights, one, seeded(3)).isfinite()
    phase.after_step(weights, Step(0, 0, 3, 0.1))
    assert all(value.isfinite().all() for value in weights.values())


def test_the_gradient_of_a_hard_gate_is_the_sigmoids() -> None:
    logits = torch.tensor([-3.0, -0.2, 0.0, 0.1, 4.0, -math.inf], dtype=torch.float64, requires_grad=True)
    gates = straight_through(logits, 2 / 3)
    assert gates.tolist() == [0, 0, 0, 1, 1, 0]
    gates.backward(torch.arange(1.0, 7.0, dtype=torch.float64))
    for k, (logit, gradient) in enumerate(zip(logits.tolist(), logits.grad.tolist(), strict=True)):
        soft = 1 / (1 + math.exp(-logit / (2 / 3))) if logit > -math.inf else 0.0
        assert gradient == pytest.approx((k + 1) * soft * (1 - soft) / (2 / 3))


@pytest.mark.parametrize(
    "training", [{}, {"weight_decay": 0.1}, {"optimiser": "adamw", "weight_decay": 0.1}, {"optimiser": "sgd"}], ids=str
)
def test_frozen_channels_and_answers_stay_to_the_bit(training: dict[str, Any]) -> None:
    learner = learner_of(SPARSE, NET, 1, training=TrainingConfig(**{"epochs": 4, "learning_rate": 0.02, **training}))
    before, frozen = learner.model, learner.model.memory
    opening = next(iter(tiny_task("t0").valid.batches(10)))[0]  # threshold 0: whatever they open is frozen
    answer = SPARSE.logits(NET, before, "t0", opening)
    assert 0 < sum(int(mask.sum()) for mask in frozen.values()) < sum(mask.numel() for mask in frozen.values())
    for k in (1, 2):
        learner.learn(tiny_task(f"t{k}", 2 + k, seed=k))
        assert torch.equal(SPARSE.logits(NET, learner.model, "t0", opening), answer)
        for name, value in learner.model.shared.items():
            mask = frozen[f"frozen.{name.split('.')[1]}"]
            assert torch.equal(value[mask], before.shared[name][mask])
            if (~mask).any() and name.endswith("weight"):
                assert not torch.equal(value[~mask], before.shared[name][~mask])
        for name, mask in learner.model.memory.items():
            assert mask.dtype == torch.bool
            assert (mask | ~frozen[name]).all()  # what was frozen stays frozen


def test_a_channel_that_opens_only_later_is_not_the_one_that_the_task_had() -> None:
    learner = learner_of(SPARSE, NET, 1, training=TRAINING, seed=4)
    own = dict(learner.model.own["t0"])
    own["gate.1.bias.1"] = torch.where(~learner.model.memory["frozen.1"], 100.0, own["gate.1.bias.1"])
    x = next(iter(tiny_task("t0").valid.batches(10)))[0]
    before = SPARSE.logits(NET, learner.model.having(own={"t0": own}), "t0", x)
    learner.learn(tiny_task("t1", seed=1))
    assert not torch.equal(SPARSE.logits(NET, learner.model.having(own={"t0": own}), "t0", x), before)


def test_free_channels_start_afresh() -> None:
    model, setup = learner_of(SPARSE, NET, 1, training=TRAINING).model, setup_of(NET, 1)
    initial, fresh = next(SPARSE.plan(model, tiny_task("t1"), setup)).initial(), initial_layers(setup)
    for name, value in fresh.items():
        mask = model.memory[f"frozen.{name.split('.')[1]}"]
        assert torch.equal(initial[name][mask], model.shared[name][mask])
        assert torch.equal(initial[name][~mask], value[~mask])
    gates = SPARSE.initial_gates(setup)
    assert all(torch.equal(initial[name], value) for name, value in gates.items())
    phase = next(replace(SPARSE, gate_step=7.0).plan(model, tiny_task("t1"), setup))
    assert {phase.scale((name,)) for name in gates} == {7.0}
    assert {phase.scale((name,)) for name in fresh} == {1.0}
    assert not torch.equal(gates["gate.0.weight.0"], SPARSE.initial_gates(setup_of(NET))["gate.0.weight.0"])
    assert frozen_numbers(fresh, {}) == {}


def test_channels_are_frozen_by_the_share_of_validation_images_that_open_them() -> None:
    masks = {}
    for threshold in (0.0, 0.9, 1.0):
        method = ChannelGated(threshold=threshold, opening=0.0)
        training, task = TrainingConfig(epochs=1, batch_size=5, learning_rate=1e-3), tiny_task("t0", 4)
        learner = learner_of(method, NET, training=training)
        learner.learn(task)
        weights = {**learner.model.shared, **learner.model.own["t0"]}
        rates = firing_rates(NET, weights, task.valid, CPU)
        masks[threshold] = torch.cat(list(learner.model.memory.values()))
        assert torch.equal(masks[threshold], torch.cat(rates) > threshold)
        opened = [torch.zeros(outputs) for _, outputs in channels(NET)]
        for x, _ in task.valid.batches(1):
            for total, factor in zip(opened, run_gated(NET, weights, x, decided(weights))[1], strict=True):
                total += factor[0]
        torch.testing.assert_close(torch.cat(rates), torch.cat(opened) / len(task.valid))
    assert masks[0.0].sum() > masks[0.9].sum() > masks[1.0].sum() == 0


def test_gates_start_open() -> None:
    shares = {}
    for opening in (0, 3):
        gates = ChannelGated(opening=opening).initial_gates(setup_of(NET))
        assert (gates["gate.1.bias.1"] == opening).all()
        factors = run_gated(NET, plain_start(NET, 2) | gates, images(50).float(), decided(gates))[1]
        shares[opening] = float(mean_open(factors))
    assert shares[0] < 0.7 < shares[3]


@every_net
def test_lasems_variant_weighs_channels_by_a_softmax(net: Net) -> None:
    method = LasemChannelGated(hidden=7)
    weights = weights_of(net, method)
    x = images()
    logits, factors = run_gated(net, weights, x, method.gate(net, weights))
    for i in range(net.depth):
        hidden = (x.flatten(1) @ weights[f"gate.{i}.weight.0"].T + weights[f"gate.{i}.bias.0"]).clamp(min=0)
        scores = (hidden @ weights[f"gate.{i}.weight.1"].T + weights[f"gate.{i}.bias.1"]) / 0.1
        powers = (scores - scores.max(dim=1, keepdim=True).values).exp()
        expected = powers / powers.sum(dim=1, keepdim=True)
        torch.testing.assert_close(factors[i], expected)
        x = naive_layer(net, weights, i, x, expected)
    torch.testing.assert_close(logits, net.head.apply(part_of(weights, "head"), x))


def test_lasems_variant_trains_everything_and_its_sparsity_term_is_a_constant() -> None:
    phase, batch = first_phase(NET, LasemChannelGated(), double=True)
    plain, _ = first_phase(NET, LasemChannelGated(sparsity=0.0))
    weights = {name: value.double().requires_grad_() for name, value in phase.initial().items()}
    losses = [one.loss(weights, batch, seeded()) for one in (phase, plain)]
    constant = 100 * sum(1 / outputs for _, outputs in channels(NET)) / NET.depth
    assert float((losses[0] - losses[1]).detach()) == pytest.approx(constant)
    gradients = [torch.autograd.grad(loss, list(weights.values())) for loss in losses]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-9)
    learner = learner_of(LasemChannelGated(), NET, 1, training=TRAINING)
    before = learner.model.shared
    learner.learn(tiny_task("t1", seed=1))
    assert learner.model.memory == {}
    assert all(not torch.equal(value, before[name]) for name, value in learner.model.shared.items())
