"""HAT against its equations, written with loops in float64, and what it promises of earlier tasks."""

import math
from dataclasses import replace
from itertools import pairwise, product

import pytest
import torch
import torch.nn.functional as F
from learner.fixture import GREY, tiny_net, tiny_task
from torch import Tensor

from lasem.data import Task
from lasem.methods import HAT, Model
from lasem.methods.gates import EMBEDDING_BOUND, annealed, compensation, free, gates
from lasem.methods.plain import run
from lasem.nets import ConvBlock, Net
from lasem.training import AbstractPhase, Step, TrainingConfig, part_of
from methods.fixture import batch_of, learner_of, plain_start, seeded, setup_of

SGD = TrainingConfig(epochs=3, batch_size=4, optimiser="sgd", learning_rate=0.05, momentum=0.9)
NET = Net(image_shape=GREY, channels=(3, 4), kernels=(3, 2), pools=(1, 2), strides=(1, 2), linear=(5, 3), hidden=(4,))
"""Two convolutions whose output has 2 x 2 pixels, and two linear layers."""
UNITS = (3, 4, 5, 3)


def uniform(seed: int = 0) -> list[Tensor]:
    generator = seeded(seed)
    return [torch.rand(num, generator=generator) for num in UNITS]


def test_the_scale_grows_over_an_epoch_from_its_inverse_to_itself() -> None:
    scales = [annealed(b, 5, 400.0) for b in range(5)]
    assert scales[0] == 1 / 400
    assert scales[-1] == pytest.approx(400)
    steps = [later - earlier for earlier, later in pairwise(scales)]
    assert steps == pytest.approx([(400 - 1 / 400) / 4] * 4)
    assert annealed(0, 1, 400.0) == pytest.approx(400)


@pytest.mark.parametrize("scale", [1 / 400, 0.3, 1.0, 4.0])
def test_compensated_gradients_do_not_depend_on_the_scale(scale: float) -> None:
    """Compensated, the slope of sigmoid(s e) is s_max times that of sigmoid(e), and is computed as the paper says."""
    embedding = torch.linspace(-5.5, 5.5, 23, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(torch.sigmoid(scale * embedding).sum(), embedding)
    factor = compensation(embedding.detach(), scale, 400.0)
    for e, found in zip(embedding.tolist(), factor.tolist(), strict=True):
        assert found == pytest.approx(400 * (math.cosh(scale * e) + 1) / (scale * (math.cosh(e) + 1)))
    flat = torch.sigmoid(embedding) * (1 - torch.sigmoid(embedding))
    torch.testing.assert_close(slope * factor, (400 * flat).detach(), rtol=1e-6, atol=1e-8)
    ends = compensation(torch.tensor([-6.0, 6.0]), 400.0, 400.0)  # finite there, too
    torch.testing.assert_close(ends, torch.full((2,), (math.cosh(50) + 1) / (math.cosh(6) + 1)))


def test_a_gate_after_the_pooling_is_a_gate_after_the_activation() -> None:
    weights = plain_start(NET, 2)
    x, gate = torch.randn(2, *GREY), uniform()
    out = x
    for i, block in enumerate(NET.blocks):
        own = part_of(weights, f"layer.{i}")
        if isinstance(block, ConvBlock):  # without its pooling, then gated, then pooled
            unpooled = ConvBlock(block.in_channels, block.out_channels, block.kernel, block.stride)
            out = unpooled.apply(own, out) * gate[i].view(-1, 1, 1)
            out = F.max_pool2d(out, block.pool, ceil_mode=True)
        else:
            out = block.apply(own, out) * gate[i]
    gated = run(NET, weights, x, gate=lambda i, _: gate[i])
    torch.testing.assert_close(gated, NET.head.apply(part_of(weights, "head"), out))
    assert not torch.equal(gated, run(NET, weights, x))


def naive_free(used: list[Tensor], name: str, place: tuple[int, ...]) -> float:
    layer, kind = int(name.split(".")[1]), name.split(".")[2]
    out = used[layer][place[0]].item()
    if kind == "bias" or layer == 0:
        return 1 - out
    if layer == 2:  # after the convolutions, a feature belongs to the channel whose 2 x 2 pixels it is one of
        feature = torch.arange(16).view(4, 2, 2)
        (channel,) = {c for c in range(4) if place[1] in feature[c]}
        return 1 - min(out, used[1][channel].item())
    return 1 - min(out, used[layer - 1][place[1]].item())


def model_of(task: str, embeddings: list[Tensor]) -> Model:
    """A model that has learned one task, with the embeddings given."""
    weights = plain_start(NET, 2)
    shared = {name: weights.pop(name) for name in list(weights) if name.startswith("layer.")}
    own = {f"embedding.{i}": e for i, e in enumerate(embeddings)}
    memory = {f"used.{i}": torch.sigmoid(400 * e) for i, e in enumerate(embeddings)}
    return Model(shared, {task: {**own, **weights}}, memory)


def decided(seed: int) -> list[Tensor]:
    """Embeddings whose gates are 0 and 1 to the bit, some of each in every layer."""
    generator = seeded(seed)
    return [torch.where(torch.randperm(num, generator=generator) < num // 2 + 1, 2.0, -2.0) for num in UNITS]


def phase_of(method: HAT, model: Model, task: Task) -> AbstractPhase:
    return next(method.plan(model, task, setup_of(NET, len(model.own), SGD)))


@pytest.mark.parametrize("clip", [10000.0, 0.01])
def test_a_step_is_that_of_the_definition(clip: float) -> None:
    """The third batch of an epoch of a second task: loss and the gradient that the optimiser gets."""
    embeddings = [torch.logit(u.clamp(0.1, 0.9)) / 400 for u in uniform(4)]
    model, task = model_of("first", embeddings), tiny_task("second", num_train=20)
    method = HAT(penalty=0.9, max_scale=4, clip=clip)  # where float32 still sees the gates' slopes
    phase = phase_of(method, model, task)
    weights = {k: v.clone().requires_grad_() for k, v in phase.initial().items()}
    batch = batch_of(phase)
    phase.begin_epoch(weights, 0, 0.1)
    for b in range(3):
        loss = phase.loss(weights, batch, seeded(1))
        for weight in weights.values():
            weight.grad = None
        loss.backward()
        phase.change_gradients(weights, Step(0, b, 5, 0.1))

    exact = {k: v.detach().double().requires_grad_() for k, v in weights.items()}
    scale = 1 / 4 + (4 - 1 / 4) * 2 / 4
    used = [torch.sigmoid(400 * e.double()) for e in embeddings]
    gate = [1 / (1 + torch.exp(-scale * exact[f"embedding.{i}"])) for i in range(4)]
    logits = run(NET, exact, batch.x.double(), dropout=seeded(1), gate=lambda i, _: gate[i])
    penalty = sum((g * (1 - u)).sum() for g, u in zip(gate, used, strict=True)) / sum((1 - u).sum() for u in used)
    expected = -torch.log_softmax(logits, 1)[range(4), batch.labels].mean() + 0.9 * penalty
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)

    expected.backward()
    gradients = {name: weight.grad.clone() for name, weight in exact.items()}
    for name, gradient in gradients.items():
        if name.startswith("embedding."):
            for j, e in enumerate(exact[name].tolist()):
                steep = math.cosh(max(-50.0, min(50.0, scale * e))) + 1
                gradient[j] *= 4 * steep / (scale * (math.cosh(e) + 1))
        elif name.startswith("layer."):
            for place in product(*map(range, gradient.shape)):
                gradient[place] *= naive_free(used, name, place)
    norm = math.sqrt(sum(float((g**2).sum()) for g in gradients.values()))
    assert norm > 0.02
    for name, gradient in gradients.items():
        wanted, found = gradient * min(1.0, clip / norm), weights[name].grad.double()
        torch.testing.assert_close(found, wanted, rtol=2e-3, atol=1e-5 * min(1, clip))


def test_the_scale_begins_again_with_every_epoch() -> None:
    phase = phase_of(HAT(), Model(), tiny_task("first", num_train=20))
    weights = {k: v.clone().requires_grad_() for k, v in phase.initial().items()}
    batch = batch_of(phase)

    def loss() -> float:
        return phase.loss(weights, batch, seeded(1)).item()

    phase.begin_epoch(weights, 0, 0.1)
    first = loss()
    assert loss() == first  # asking does not change anything
    phase.loss(weights, batch, torch.Generator()).backward()  # type: ignore[no-untyped-call]
    phase.change_gradients(weights, Step(0, 0, 5, 0.1))
    assert loss() != first
    phase.begin_epoch(weights, 1, 0.1)
    assert loss() == first


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_units_that_are_used_keep_their_weights_and_answers_to_the_bit(momentum: float) -> None:
    later = model = model_of("first", decided(6))
    assert all(bool(((a == 0) | (a == 1)).all()) for a in model.memory.values())
    images, method = torch.randn(5, *GREY), HAT()
    answers = method.logits(NET, model, "first", images)
    for k in range(2):
        learner = learner_of(method, NET, training=replace(SGD, learning_rate=0.1, momentum=momentum), seed=k)
        learner._model = later  # go on from a model with gates that a test has chosen
        learner.learn(tiny_task(f"later-{k}", 3, seed=k, num_train=20))
        later = learner.model
        assert torch.equal(method.logits(NET, later, "first", images), answers)
    factors = free(NET, list(model.memory.values()))
    moved = 0
    for name, value in later.shared.items():
        protected = factors[name].expand(value.shape) == 0
        assert bool(protected.any())
        assert torch.equal(value[protected], model.shared[name][protected]), name
        moved += int((value != model.shared[name]).sum())
    assert moved > 10
    for i, old in enumerate(model.memory.values()):
        own = [torch.sigmoid(400 * later.own[f"later-{k}"][f"embedding.{i}"]) for k in range(2)]
        torch.testing.assert_close(later.memory[f"used.{i}"], torch.maximum(old, torch.maximum(*own)))


def test_gates_close_as_the_penalty_asks_and_embeddings_stay_in_bounds() -> None:
    share = {}
    training = TrainingConfig(epochs=8, batch_size=4, optimiser="sgd", momentum=0.0, learning_rate=0.1, tolerance=9)
    for penalty in (0.0, 20.0):
        learner = learner_of(HAT(penalty=penalty), tiny_net(), training=training, seed=0)
        learner.learn(tiny_task("a", num_train=20))
        own = learner.model.own["a"]
        assert all(float(own[f"embedding.{i}"].abs().max()) <= EMBEDDING_BOUND for i in range(2))
        share[penalty] = float(torch.cat(gates(own, tiny_net(), 400.0)).mean())
    assert share[20.0] < 0.2 < share[0.0]


def test_what_a_task_owns_is_its_gates_and_its_head() -> None:
    own = learner_of(HAT(), NET, 1, training=SGD).model.own["t0"]
    assert own.keys() == {f"embedding.{i}" for i in range(4)} | {f"head.{name}" for name in NET.head.shapes(2)}
