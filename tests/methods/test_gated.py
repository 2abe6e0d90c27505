from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from learner.fixture import tiny_net, tiny_task
from torch import Tensor

from lasem.errors import ConfigError
from lasem.learner import Learner
from lasem.methods import AbstractMethod, ChannelGated, LasemChannelGated, Setup
from lasem.methods.gated import (
    channels,
    decided,
    firing_rates,
    fresh_where_free,
    mean_open,
    run_gated,
    straight_through,
)
from lasem.methods.plain import initial_head, initial_layers
from lasem.nets import Net
from lasem.training import AbstractPhase, Batch, Step, TrainingConfig

CPU = torch.device("cpu")
NETS = [tiny_net(depth=2), tiny_net(depth=2, linear=(4,)), tiny_net(depth=0, linear=(5, 3))]
every_net = pytest.mark.parametrize("net", NETS, ids=["convolutions", "both", "linear"])
TRAINING = TrainingConfig(epochs=4, batch_size=5, learning_rate=0.02)


def setup_of(net: Net, index: int = 0, **changes: Any) -> Setup:
    return Setup(net, TrainingConfig(**{"epochs": 4, "batch_size": 5, **changes}), CPU, seed=5, index=index)


def weights_of(net: Net, method: ChannelGated | LasemChannelGated, num_classes: int = 3) -> dict[str, Tensor]:
    """In float64, with gates whose normalisation is not the identity."""
    setup, generator = setup_of(net), torch.Generator().manual_seed(1)
    weights = {**initial_layers(setup), **method.initial_gates(setup), **initial_head(setup, num_classes)}
    return {
        name: value.double() + 0.3 * torch.rand(value.shape, generator=generator, dtype=torch.float64)
        for name, value in weights.items()
    }


def naive_layer(net: Net, weights: dict[str, Tensor], i: int, x: Tensor) -> Tensor:
    return net.blocks[i].apply({name: weights[f"layer.{i}.{name}"] for name in ("weight", "bias")}, x)


def naive_pool(x: Tensor) -> list[float]:
    """Mean of each channel of one image's features."""
    if x.dim() == 1:
        return [float(value) for value in x]
    return [sum(float(value) for row in channel for value in row) / channel.numel() for channel in x]


def naive_hidden(weights: dict[str, Tensor], i: int, x: Tensor) -> list[list[float]]:
    rows = weights[f"gate.{i}.weight.0"].tolist()
    return [[sum(w * v for w, v in zip(row, naive_pool(image), strict=True)) for row in rows] for image in x]


def naive_logits(
    weights: dict[str, Tensor], i: int, hidden: list[list[float]], mean: list[float], variance: list[float]
) -> list[list[float]]:
    of = {name: weights[f"gate.{i}.{name}"].tolist() for name in ("scale", "shift", "weight.1", "bias.1")}
    logits = []
    for units in hidden:
        active = [
            max(0.0, (u - m) / math.sqrt(v + 1e-5) * scale + shift)
            for u, m, v, scale, shift in zip(units, mean, variance, of["scale"], of["shift"], strict=True)
        ]
        logits.append(
            [
                sum(w * a for w, a in zip(row, active, strict=True)) + bias
                for row, bias in zip(of["weight.1"], of["bias.1"], strict=True)
            ]
        )
    return logits


def multiplied(x: Tensor, factors: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for b in range(x.shape[0]):
        for k in range(x.shape[1]):
            out[b, k] = x[b, k] * factors[b, k]
    return out


@every_net
def test_gates_go_by_the_pooled_input_and_switch_channels(net: Net) -> None:
    weights = weights_of(net, ChannelGated(opening=0.0))
    images = torch.randn(6, 1, 6, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    logits, factors = run_gated(net, weights, images, decided(weights))
    x = images
    for i in range(net.depth):
        mean, variance = (weights[f"gate.{i}.{name}"].tolist() for name in ("mean", "variance"))
        gate = naive_logits(weights, i, naive_hidden(weights, i, x), mean, variance)
        expected = torch.tensor([[1.0 if value > 0 else 0.0 for value in row] for row in gate], dtype=torch.float64)
        assert torch.equal(factors[i], expected)
        x = multiplied(naive_layer(net, weights, i, x), expected)
    head = {name.removeprefix("head."): value for name, value in weights.items() if name.startswith("head.")}
    torch.testing.assert_close(logits, net.head.apply(head, x))
    assert 0 < torch.cat(factors, dim=1).mean() < 1
    assert [factor.shape[1] for factor in factors] == [outputs for _, outputs in channels(net)]


def first_phase(
    net: Net, method: AbstractMethod, index: int = 0, **training: Any
) -> tuple[AbstractPhase, dict[str, Tensor], Batch]:
    setup, task = setup_of(net, index, **training), tiny_task(num_classes=3, shape=net.image_shape)
    phase = next(method.plan(Learner(net, method).model, task, setup))
    batch = next(phase.batches(CPU, torch.Generator().manual_seed(0)))
    return phase, phase.initial(), batch


@every_net
def test_the_loss_in_training(net: Net) -> None:
    """Logistic noise, moments of the batch, hard gates, and the sparsity term once it has set in."""
    method = ChannelGated(sparsity=2.0, dense_share=0.5, opening=0.0)
    phase, _, batch = first_phase(net, method)
    weights = weights_of(net, method)
    batch = batch._replace(x=batch.x.double())
    draws, x, open_shares = torch.Generator().manual_seed(3), batch.x, []
    for i in range(net.depth):
        hidden = naive_hidden(weights, i, x)
        units = list(zip(*hidden, strict=True))
        mean = [sum(unit) / len(unit) for unit in units]
        variance = [sum((u - m) ** 2 for u in unit) / len(unit) for unit, m in zip(units, mean, strict=True)]
        logits = naive_logits(weights, i, hidden, mean, variance)
        uniform = torch.rand(len(x), len(logits[0]), generator=draws).tolist()
        factors = torch.tensor(
            [
                [float(logit + math.log(u) - math.log(1 - u) > 0) for logit, u in zip(*rows, strict=True)]
                for rows in zip(logits, uniform, strict=True)
            ],
            dtype=torch.float64,
        )
        open_shares.append(sum(float(row.sum()) for row in factors) / len(x) / factors.shape[1])
        x = multiplied(naive_layer(net, weights, i, x), factors)
    head = {name.removeprefix("head."): value for name, value in weights.items() if name.startswith("head.")}
    cross_entropy = float(F.cross_entropy(net.head.apply(head, x, draws), batch.labels))
    for epoch, sparse in ((0, False), (1, False), (2, True), (3, True)):  # half of four epochs without the term
        phase.begin_epoch(weights, epoch, 0.1)
        loss = float(phase.loss(weights, batch, torch.Generator().manual_seed(3)))
        expected = cross_entropy + sparse * 2.0 * sum(open_shares) / len(open_shares)
        assert loss == pytest.approx(expected, rel=1e-6)
    assert 0 < sum(open_shares) < net.depth


def test_the_running_moments_are_those_of_batch_normalisation() -> None:
    net = NETS[0]
    phase, initial, batch = first_phase(net, ChannelGated())
    weights = {name: value.clone() for name, value in initial.items()}
    norm = torch.nn.BatchNorm1d(16)
    for number in range(3):
        part = batch._replace(x=batch.x + number)
        phase.loss(weights, part, torch.Generator().manual_seed(3))
        phase.after_step(weights, Step(0, number, 3, 0.1))
        norm(part.x.mean(dim=(2, 3)) @ weights["gate.0.weight.0"].T)
    torch.testing.assert_close(weights["gate.0.mean"], norm.running_mean)
    torch.testing.assert_close(weights["gate.0.variance"], norm.running_var)
    one = batch._replace(x=batch.x[:1], labels=batch.labels[:1])  # a last batch may hold one image
    assert phase.loss(weights, one, torch.Generator().manual_seed(3)).isfinite()
    phase.after_step(weights, Step(0, 0, 3, 0.1))
    assert all(value.isfinite().all() for value in weights.values())


def test_the_gradient_of_a_hard_gate_is_the_sigmoids() -> None:
    logits = torch.tensor([-3.0, -0.2, 0.0, 0.1, 4.0, -math.inf], dtype=torch.float64, requires_grad=True)
    gates = straight_through(logits, 2 / 3)
    assert gates.tolist() == [0, 0, 0, 1, 1, 0]
    gates.backward(torch.arange(1.0, 7.0, dtype=torch.float64))
    assert logits.grad is not None
    for k, (logit, gradient) in enumerate(zip(logits.tolist(), logits.grad.tolist(), strict=True)):
        soft = 1 / (1 + math.exp(-logit / (2 / 3))) if logit > -math.inf else 0.0
        assert gradient == pytest.approx((k + 1) * soft * (1 - soft) / (2 / 3))


def test_the_sparsity_term_averages_layers_not_channels() -> None:
    factors = [torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]])]
    assert float(mean_open(factors)) == pytest.approx((3 / 4 + 1 / 8) / 2)


def learner_of(method: AbstractMethod, net: Net = NETS[1], **training: Any) -> Learner:
    config = TrainingConfig(**{"epochs": 4, "batch_size": 5, "learning_rate": 0.02, **training})
    return Learner(net, method, training=config, seed=4)


SPARSE = ChannelGated(sparsity=4.0, dense_share=0.0, opening=0.0, gate_step=1.0)


@pytest.mark.parametrize(
    "training", [{}, {"weight_decay": 0.1}, {"optimiser": "adamw", "weight_decay": 0.1}, {"optimiser": "sgd"}], ids=str
)
def test_frozen_channels_and_answers_stay_to_the_bit(training: dict[str, Any]) -> None:
    learner = learner_of(SPARSE, **training)
    tasks = [tiny_task(f"t{k}", 2 + k, seed=k) for k in range(3)]
    learner.learn(tasks[0])
    before, frozen = learner.model, learner.model.memory
    images = next(iter(tasks[0].valid.batches(10)))[0]  # threshold 0: whatever they open is frozen
    answer = SPARSE.logits(learner.net, before, "t0", images)
    assert 0 < sum(int(mask.sum()) for mask in frozen.values()) < sum(mask.numel() for mask in frozen.values())
    for task in tasks[1:]:
        learner.learn(task)
        assert torch.equal(SPARSE.logits(learner.net, learner.model, "t0", images), answer)
        for name, value in learner.model.shared.items():
            mask = frozen[f"frozen.{name.split('.')[1]}"]
            assert torch.equal(value[mask], before.shared[name][mask])
            if (~mask).any() and name.endswith("weight"):
                assert not torch.equal(value[~mask], before.shared[name][~mask])
        for name, mask in learner.model.memory.items():
            assert mask.dtype == torch.bool
            assert (mask | ~frozen[name]).all()  # what was frozen stays frozen


def test_a_channel_that_opens_only_later_is_not_the_one_that_the_task_had() -> None:
    learner = learner_of(SPARSE)
    learner.learn(tiny_task("t0"))
    free = ~learner.model.memory["frozen.1"]
    own = dict(learner.model.own["t0"])
    own["gate.1.bias.1"] = torch.where(free, 100.0, own["gate.1.bias.1"])
    images = next(iter(tiny_task("t0").valid.batches(10)))[0]
    before = SPARSE.logits(learner.net, learner.model.having(own={"t0": own}), "t0", images)
    learner.learn(tiny_task("t1", seed=1))
    assert not torch.equal(SPARSE.logits(learner.net, learner.model.having(own={"t0": own}), "t0", images), before)


def test_free_channels_start_afresh() -> None:
    learner = learner_of(SPARSE)
    learner.learn(tiny_task("t0"))
    setup = setup_of(learner.net, index=1)
    phase = next(SPARSE.plan(learner.model, tiny_task("t1"), setup))
    initial, fresh = phase.initial(), initial_layers(setup)
    for name, value in fresh.items():
        mask = learner.model.memory[f"frozen.{name.split('.')[1]}"]
        assert torch.equal(initial[name][mask], learner.model.shared[name][mask])
        assert torch.equal(initial[name][~mask], value[~mask])
    gates = SPARSE.initial_gates(setup)
    assert all(torch.equal(initial[name], value) for name, value in gates.items())
    assert not torch.equal(gates["gate.0.weight.0"], SPARSE.initial_gates(setup_of(learner.net))["gate.0.weight.0"])
    assert fresh_where_free(fresh, {}, {}, CPU) == fresh


def test_channels_are_frozen_by_the_share_of_validation_images_that_open_them() -> None:
    masks = {}
    for threshold in (0.0, 0.9, 1.0):
        method = ChannelGated(threshold=threshold, opening=0.0)
        learner, task = learner_of(method, epochs=1, learning_rate=1e-3), tiny_task("t0", 4)
        learner.learn(task)
        weights = {**learner.model.shared, **learner.model.own["t0"]}
        rates = firing_rates(learner.net, weights, task.valid, CPU)
        masks[threshold] = torch.cat(list(learner.model.memory.values()))
        assert torch.equal(masks[threshold], torch.cat(rates) > threshold)
        opened = [torch.zeros(outputs) for _, outputs in channels(learner.net)]
        for x, _ in task.valid.batches(1):
            for total, factor in zip(opened, run_gated(learner.net, weights, x, decided(weights))[1], strict=True):
                total += factor[0]
        torch.testing.assert_close(torch.cat(rates), torch.cat(opened) / len(task.valid))
    assert masks[0.0].sum() > masks[0.9].sum() > masks[1.0].sum() == 0


def test_gates_start_open() -> None:
    net = NETS[1]
    weights = {**initial_layers(setup_of(net)), **initial_head(setup_of(net), 2)}
    images = torch.randn(50, 1, 6, 6, generator=torch.Generator().manual_seed(2))
    shares = {}
    for opening in (0, 3):
        method = ChannelGated(opening=opening)
        gates = method.initial_gates(setup_of(net))
        assert (gates["gate.1.bias.1"] == opening).all()
        shares[opening] = float(mean_open(run_gated(net, {**weights, **gates}, images, decided(gates))[1]))
    assert shares[0] < 0.7 < shares[3]


def test_gates_have_a_step_size_of_their_own() -> None:
    phase, initial, _ = first_phase(NETS[1], ChannelGated(gate_step=7.0))
    for name in initial:
        assert phase.scale((name,)) == (7.0 if name.startswith("gate.") else 1.0)


def test_when_no_channel_is_left_gates_and_head_learn_on() -> None:
    method = ChannelGated(sparsity=0.0)
    learner = learner_of(method)
    learner.learn(tiny_task("t0"))
    full = {name: torch.ones_like(mask) for name, mask in learner.model.memory.items()}
    learner._model = learner.model.having(memory=full)
    before = learner.model.shared
    learner.learn(tiny_task("t1", seed=1))
    assert all(torch.equal(value, before[name]) for name, value in learner.model.shared.items())
    setup = Setup(learner.net, learner.training, CPU, seed=4, index=1)
    start = {**method.initial_gates(setup), **initial_head(setup, 2)}
    assert all(not torch.equal(value, start[name]) for name, value in learner.model.own["t1"].items())
    assert all(mask.all() for mask in learner.model.memory.values())


@every_net
def test_lasems_variant_weighs_channels_by_a_softmax(net: Net) -> None:
    method = LasemChannelGated(hidden=7)
    weights = weights_of(net, method)
    images = torch.randn(6, 1, 6, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    logits, factors = run_gated(net, weights, images, method.gate(net, weights))
    x = images
    for i in range(net.depth):
        hidden = (x.flatten(1) @ weights[f"gate.{i}.weight.0"].T + weights[f"gate.{i}.bias.0"]).clamp(min=0)
        scores = (hidden @ weights[f"gate.{i}.weight.1"].T + weights[f"gate.{i}.bias.1"]) / 0.1
        powers = (scores - scores.max(dim=1, keepdim=True).values).exp()
        expected = powers / powers.sum(dim=1, keepdim=True)
        torch.testing.assert_close(factors[i], expected)
        x = multiplied(naive_layer(net, weights, i, x), expected)
    head = {name.removeprefix("head."): value for name, value in weights.items() if name.startswith("head.")}
    torch.testing.assert_close(logits, net.head.apply(head, x))


def test_lasems_variant_trains_everything_and_its_sparsity_term_is_a_constant() -> None:
    net, method = NETS[1], LasemChannelGated()
    phase, initial, batch = first_phase(net, method)
    plain, _, _ = first_phase(net, LasemChannelGated(sparsity=0.0))
    weights = {name: value.double().requires_grad_() for name, value in initial.items()}
    batch = batch._replace(x=batch.x.double())
    losses = [one.loss(weights, batch, torch.Generator().manual_seed(0)) for one in (phase, plain)]
    constant = 100 * sum(1 / outputs for _, outputs in channels(net)) / net.depth
    assert float((losses[0] - losses[1]).detach()) == pytest.approx(constant)
    gradients = [torch.autograd.grad(loss, list(weights.values())) for loss in losses]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-9)
    learner = learner_of(method)
    learner.learn(tiny_task("t0"))
    before = learner.model.shared
    learner.learn(tiny_task("t1", seed=1))
    assert learner.model.memory == {}
    assert all(not torch.equal(value, before[name]) for name, value in learner.model.shared.items())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ChannelGated(sparsity=-1), "ChannelGated.sparsity must be at least 0"),
        (lambda: ChannelGated(dense_share=1.1), "dense_share must be at least 0 and at most 1"),
        (lambda: ChannelGated(threshold=-0.1), "threshold must be at least 0"),
        (lambda: ChannelGated(opening=math.inf), "opening must be finite"),
        (lambda: ChannelGated(gate_step=0), "gate_step must be above 0"),
        (lambda: ChannelGated(hidden=0), "hidden must be at least 1"),
        (lambda: ChannelGated(temperature=0), "temperature must be above 0"),
        (lambda: LasemChannelGated(sparsity=-1), "LasemChannelGated.sparsity must be at least 0"),
        (lambda: LasemChannelGated(hidden=0), "hidden must be at least 1"),
        (lambda: LasemChannelGated(temperature=0), "temperature must be above 0"),
    ],
)
def test_settings_out_of_range(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
