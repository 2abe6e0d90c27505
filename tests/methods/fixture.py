"""Networks, learners and phases for the tests of methods."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from learner.fixture import tiny_net, tiny_task
from torch import Tensor

from lasem import Learner, Net
from lasem.methods import Learned, Setup
from lasem.methods.plain import initial_head, initial_layers
from lasem.training import AbstractPhase, Batch, EpochSummary, Named, PhaseResult, Plan, Snapshot, TrainingConfig

CPU = torch.device("cpu")
QUICK = TrainingConfig(epochs=2, batch_size=5, learning_rate=0.01)
NETS = [tiny_net(depth=2), tiny_net(depth=2, linear=(4,)), tiny_net(depth=0, linear=(5, 3))]
DEEP = Net(
    image_shape=(2, 7, 5), channels=(3, 4), kernels=(3, 2), pools=(1, 2), strides=(2, 1), linear=(6,), hidden=(5, 3)
)
every_net = pytest.mark.parametrize("net", NETS, ids=["convolutions", "both", "linear"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(like: Named, seed: int, size: float = 0.3) -> dict[str, Tensor]:
    generator = seeded(seed)
    return {name: t + size * torch.randn(t.shape, generator=generator) for name, t in like.items()}


def setup_of(net: Net, index: int = 0, training: TrainingConfig = QUICK, seed: int = 3) -> Setup:
    return Setup(net, training, CPU, seed, index)


def plain_start(net: Net, num_classes: int = 3, index: int = 0) -> dict[str, Tensor]:
    """What every method starts the layers and the head from."""
    return {**initial_layers(setup_of(net, index)), **initial_head(setup_of(net, index), num_classes)}


def learner_of(method: Any, net: Net, num_tasks: int = 0, *, training: Any = QUICK, seed: int = 3) -> Learner:
    """A learner that has learned tasks t0, t1 ... with 2, 3, 2, 3 ... classes."""
    learner = Learner(net, method, training=training, seed=seed)
    for k in range(num_tasks):
        learner.learn(tiny_task(f"t{k}", 2 + k % 2, net.image_shape, seed=k))
    return learner


def result_of(phase: AbstractPhase, weights: dict[str, Tensor], loss: float = 1.0) -> PhaseResult:
    """As if the phase had been trained to some weights in its last epoch, and had never been better."""
    end = Snapshot(phase.config.epochs, 0.5, weights, EpochSummary("TT"))
    return PhaseResult(end, end, phase.config.epochs, loss)


def drive(plan: Plan[Learned], train: Callable[[AbstractPhase], PhaseResult]) -> tuple[Learned, list[AbstractPhase]]:
    """What a plan comes to if ``train`` gives the results of its phases, and these."""
    phases: list[AbstractPhase] = [next(plan)]
    num_epochs = 0
    while True:
        result = replace(train(phases[-1]), epochs_before=num_epochs)
        num_epochs += result.num_epochs
        try:
            phases.append(plan.send(result))
        except StopIteration as stop:
            return stop.value, phases


def batch_of(phase: AbstractPhase, *, double: bool = False) -> Batch:
    batch = next(iter(phase.batches(CPU, seeded())))
    return batch._replace(x=batch.x.double()) if double else batch


def naive_cross_entropy(logits: Tensor, labels: Tensor) -> float:
    rows = logits.detach().double()
    losses = [float(row.exp().sum().log() - row[label]) for row, label in zip(rows, labels.tolist(), strict=True)]
    return sum(losses) / len(losses)


def naive_accuracy(answer: Callable[[Tensor], Tensor], split: Any) -> float:
    right = [int(answer(x)[0].argmax()) == int(label) for x, label in split.batches(1)]
    return sum(right) / len(right)
