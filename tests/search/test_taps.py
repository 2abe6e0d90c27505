"""TAPS: gates and their gradients against the definition, and what becomes of a task."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from learner.fixture import copied, every_sharing, tiny_net, tiny_task
from torch import Tensor
from training.fixture import run, start_with
from training.test_kept import net_of

from lasem import HardSharing, Learner, TrainingConfig
from lasem.errors import ConfigError
from lasem.search import TAPS, TAPSPhase
from lasem.sharing import AbstractSharing
from lasem.space import factorised
from lasem.training import Batch
from lasem.tree import Path, flatten

CONFIG = TrainingConfig(epochs=4, batch_size=5, learning_rate=0.01, augment="none", steps=(1.0,))


def start_of_three_layers(sharing: Any = None, **others: Any) -> Any:
    net = tiny_net(depth=3, dropout=0.0)
    return start_with(net, sharing or HardSharing(), factorised((1, 2)), CONFIG, **others)


def gradients(loss: Tensor, tree: Any) -> dict[Path, Tensor]:
    """Of every tensor of a tree; 0 where there is none."""
    flat = flatten(tree)
    found = torch.autograd.grad(loss, list(flat.values()), materialize_grads=True, retain_graph=True)
    return dict(zip(flat, found, strict=True))


@every_sharing
def test_gates_and_gradients_are_their_definition(sharing: AbstractSharing) -> None:
    """With w0 + g delta for numbers g: their gradient is that of the scores, but for the penalty's."""
    start, source = start_of_three_layers(sharing, dtype=torch.float64), torch.Generator().manual_seed(1)
    phase = TAPSPhase(TAPS(penalty=0.7, unpenalised=1), start)
    weights = copied(phase.initial(), requires_grad=True)
    for block, own in zip(start.net.blocks, weights.layers, strict=True):  # delta = 0 at the start
        torch.testing.assert_close(own.specific, sharing.weights(block, own.shared, own.factors), rtol=0, atol=0)
    x = torch.randn(4, 1, 6, 6, dtype=torch.float64, generator=source)
    batch, gates = Batch(x, torch.tensor([0, 1, 1, 0]), "task"), torch.tensor([1.0, 0.0], dtype=torch.float64)
    gates.requires_grad_(True)
    with torch.no_grad():
        for path, value in flatten(weights).items():
            value.mul_(0.8).add_(0.8 * str(path[-1]).startswith("bias"))  # so that no layer is silent
        weights.scores.copy_(torch.tensor([0.2, 0.05], dtype=torch.float64))
    y, penalty = x, torch.zeros((), dtype=torch.float64)
    for i, (block, own) in enumerate(zip(start.net.blocks, weights.layers, strict=True)):
        base = sharing.weights(block, own.shared, own.factors)
        with torch.no_grad():
            for value in own.specific.values():
                value.add_(0.2 * torch.randn(value.shape, dtype=torch.float64, generator=source))
        group = min(i, 1)
        y = block.apply({n: base[n] + gates[group] * (own.specific[n] - base[n]) for n in own.specific}, y)
        added = sharing.penalty(block, own.factors)
        penalty = penalty if added is None or group == 0 else penalty + added  # of layers that are transferred
    expected = F.cross_entropy(start.net.head.apply(weights.head, y), batch.labels) + penalty
    wanted = gradients(expected, weights)
    phase.begin_epoch(weights, 0, 0.01)
    torch.testing.assert_close(phase.loss(weights, batch, source), expected)
    phase.begin_epoch(weights, 1, 0.01)
    loss = phase.loss(weights, batch, source)
    torch.testing.assert_close(loss, expected + 0.7 * (0.2 + 0.05) / 2)
    wanted["scores",] = torch.autograd.grad(expected, gates)[0] + 0.7 / 2
    assert wanted["scores",].sub(0.35).abs().min() > 1e-6
    torch.testing.assert_close(gradients(loss, weights), wanted)
    assert str(phase.configuration(weights)) == "STT"


@pytest.mark.parametrize(("penalty", "expected"), [(0.0, "SSS"), (100.0, "TTT")])
def test_the_penalty_decides_how_much_is_owned(penalty: float, expected: str) -> None:
    start = start_of_three_layers()
    found, records = run(TAPS(penalty=penalty, unpenalised=0, score_step=0.05), start)
    assert str(found.kept.configuration) == records[-1].configuration == expected
    for before, after in zip(start.weights.layers, found.kept.weights.layers, strict=True):
        assert all(torch.equal(value, after.shared[name]) for name, value in before.shared.items())


def test_a_pretrained_network_s_first_task_is_searched() -> None:
    search, phases = TAPS(score_step=0.02), list[str]()
    learner = Learner(net_of(), sharing=HardSharing(train_shared=False), search=search, training=CONFIG, seed=3)
    record = learner.learn(tiny_task("a"), on_epoch=lambda epoch, *_: phases.append(epoch.phase))
    assert phases == ["step 1e-02"] * 2 + ["all images"] * 2
    assert len(record.configuration) == 3


def test_a_score_must_start_where_its_change_has_a_gradient() -> None:
    with pytest.raises(ConfigError, match=r"TAPS.start must be at least the threshold, 0\.2; got 0\.15"):
        TAPS(threshold=0.2)
