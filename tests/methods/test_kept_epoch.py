"""Which epoch a baseline keeps and which one its record tells, when the two are not the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from learner.fixture import tiny_net, tiny_task
from torch import Tensor

from lasem.learner import Learner
from lasem.methods import EWC, METHODS, AbstractMethod
from lasem.methods.method import Learned, Setup
from lasem.methods.model import Model
from lasem.training import AbstractPhase, EpochSummary, Named, PhaseResult, Snapshot, TrainingConfig

NET = tiny_net()
TASKS = [tiny_task(f"t{k}", 2 + k, seed=k) for k in range(2)]
BEST, LAST = 3, 4


def setup_of(kind: type[AbstractMethod], index: int, *, restore_best: bool) -> Setup:
    own = {name: value for name, value in kind.training.items() if name != "epochs"}
    training = TrainingConfig(epochs=LAST, batch_size=5, restore_best=restore_best, **own)
    return Setup(NET, training, torch.device("cpu"), 3, index)


def moved(phase: AbstractPhase, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: t + 0.3 * torch.randn(t.shape, generator=generator) for name, t in phase.initial().items()}


def drive(
    kind: type[AbstractMethod], *seeds: tuple[int, int], earlier: tuple[int, int] = (8, 9), restore_best: bool
) -> tuple[Learned, int]:
    """Both tasks learned as if the last phase of each had come to some weights in its best epoch and others at its end.

    Args:
        kind: the method.
        seeds: for each task, of the weights in the best epoch and at the end.
        earlier: the same for the phases before the last one, of all tasks.
        restore_best: which of them are kept.

    Returns:
        The second task's outcome, and the epochs of its phases before the last one.
    """
    model, seen = Model(), EpochSummary("TT")
    for index, (task, of_task) in enumerate(zip(TASKS, seeds, strict=True)):
        plan = kind().plan(model, task, setup_of(kind, index, restore_best=restore_best))
        phase, epochs_before = next(plan), 0
        while True:
            best, last = (moved(phase, seed) for seed in (of_task if phase.title in ("", "last") else earlier))
            fitted = PhaseResult(
                Snapshot(BEST, 0.75, best, seen),
                Snapshot(LAST, 0.25, last, seen),
                LAST,
                1.0,
            )
            try:
                phase = plan.send(fitted)
            except StopIteration as stop:
                learned: Learned = stop.value
                break
            epochs_before += LAST
        model = learned.model
    return learned, epochs_before


def same(first: Model, second: Model) -> bool:
    def flat(model: Model) -> dict[str, Tensor]:
        parts: dict[str, Named] = {"shared": model.shared, "memory": model.memory, **model.own}
        return {f"{part}:{name}": value for part, named in parts.items() for name, value in named.items()}

    a, b = flat(first), flat(second)
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


every_method = pytest.mark.parametrize("kind", METHODS.values(), ids=lambda kind: kind.name)


@every_method
def test_the_best_epoch_is_kept_where_the_settings_restore_it(kind: type[AbstractMethod]) -> None:
    learned, before = drive(kind, (1, 2), (3, 4), restore_best=True)
    assert same(learned.model, drive(kind, (1, 1), (3, 3), earlier=(8, 8), restore_best=True)[0].model)
    assert not same(learned.model, drive(kind, (1, 1), (4, 4), restore_best=True)[0].model)
    assert same(learned.best, learned.model)
    assert (learned.best_epoch, learned.valid_accuracy, learned.num_epochs) == (before + BEST, 0.75, before + LAST)


@every_method
def test_otherwise_the_last_one_is_and_the_best_one_is_told(kind: type[AbstractMethod]) -> None:
    learned, before = drive(kind, (1, 2), (3, 4), restore_best=False)
    assert same(learned.model, drive(kind, (2, 2), (4, 4), earlier=(9, 9), restore_best=False)[0].model)
    assert same(learned.best, drive(kind, (2, 2), (3, 3), earlier=(9, 9), restore_best=False)[0].model)
    assert not same(learned.best, learned.model)
    assert (learned.best_epoch, learned.valid_accuracy, learned.num_epochs) == (before + BEST, 0.75, before + LAST)


@pytest.mark.parametrize("restore_best", [False, True])
def test_the_peak_is_the_best_epochs_whichever_is_kept(restore_best: bool) -> None:
    training = TrainingConfig(
        epochs=8,
        batch_size=5,
        learning_rate=0.05,
        schedule="constant",
        patience=0,
        restore_best=restore_best,
        tolerance=0.0,
    )
    task = tiny_task("t", 3, seed=10, num_train=6)
    learner = Learner(NET, EWC(), training=training, seed=1)
    record = learner.learn(task)
    assert record.best_epoch < record.num_epochs == 8
    until = Learner(NET, EWC(), training=replace(training, epochs=record.best_epoch), seed=1)
    until.learn(task)
    assert record.peak_accuracy == until.accuracy("t", task.test)
    assert record.valid_accuracy == until.accuracy("t", task.valid)
    assert (learner.accuracy("t", task.test) == record.peak_accuracy) == restore_best
