from dataclasses import replace
from typing import Any

import pytest
import torch
from learner.fixture import copied, every_sharing, tiny_net

from lasem.search import DARTS, EM, DARTSPhase, MixturePhase
from lasem.sharing import AbstractSharing, HardSharing
from lasem.space import full
from lasem.training import Quadratic, SharedProtection, TaskStart, TaskWeights, TrainingConfig, with_term
from lasem.training.phase import AbstractPhase, Batch
from lasem.tree import flatten

from .fixture import NEVER, loop_over, start_with, train


def problem_of(guard: SharedProtection, sharing: AbstractSharing, **training: Any) -> TaskStart:
    config = TrainingConfig(epochs=3, batch_size=5, **training)
    return start_with(tiny_net(), sharing, full(2), config, protection=guard)


def phases(problem: TaskStart) -> list[AbstractPhase[TaskWeights]]:
    return [
        MixturePhase(EM(**NEVER), problem),
        DARTSPhase(DARTS(first_task="search"), problem),
        DARTSPhase(DARTS(first_task="search", order="second"), problem),
    ]


@every_sharing
@pytest.mark.parametrize("which", range(3), ids=["em", "darts", "darts-second"])
def test_what_is_only_read_does_not_change_and_the_rest_does(which: int, sharing: AbstractSharing) -> None:
    held = SharedProtection(read_only=frozenset({1}))
    phase = phases(problem_of(held, sharing, optimiser="adamw", weight_decay=0.1))[which]
    before = flatten(copied(phase.initial()))
    loop = loop_over(phase)
    train(loop)
    for path, value in flatten(loop.weights).items():
        held = path[:3] == ("layers", 1, "shared")
        assert (torch.equal(value, before[path]), value.requires_grad) == (held, not held), path
    assert not [name for name in loop.state()["optimiser"] if name.startswith("layers.1.shared.")]


@pytest.mark.parametrize("which", range(2), ids=["em", "darts"])
def test_the_penalty_is_in_the_loss(which: int) -> None:
    free = problem_of(SharedProtection(), HardSharing())
    shared = free.weights.shared()
    importances = {name: torch.rand_like(value) for name, value in shared.items()}
    anchor = {name: torch.randn_like(value) for name, value in shared.items()}
    held = replace(free, protection=SharedProtection(quadratic=with_term(None, importances, anchor), strength=3.0))
    expected = 0.0
    for name, value in shared.items():
        for f, m, w in zip(importances[name].flatten(), anchor[name].flatten(), value.flatten(), strict=True):
            expected += 1.5 * float(f) * (float(w) - float(m)) ** 2
    x, labels = next(free.task.train.batches(5, generator=torch.Generator().manual_seed(0)))
    batch = Batch(x, labels, free.task.name)
    with_held, without = (
        float(phases(p)[which].loss(p.weights, batch, torch.Generator().manual_seed(1))) for p in (held, free)
    )
    assert with_held - without == pytest.approx(expected, rel=1e-5)


def test_a_strong_penalty_keeps_weights_and_leaves_what_does_not_matter_free() -> None:
    start = problem_of(SharedProtection(), HardSharing()).weights.shared()
    name = "layer.0.shared.weight"
    matters = torch.zeros_like(start[name])
    matters[0] = 50.0
    guard = SharedProtection(quadratic=with_term(None, {name: matters}, {name: start[name]}), strength=1.0)
    moved = []
    for held in (guard, SharedProtection()):
        problem = problem_of(held, HardSharing(), optimiser="sgd", momentum=0.0, learning_rate=0.01)
        loop = loop_over(MixturePhase(EM(**NEVER), problem))
        train(loop)
        moved.append((loop.weights.shared()[name] - start[name]).detach().flatten(1).norm(dim=1))
    assert moved[0][0] < 0.5 * moved[1][0]
    assert (moved[0][1:] > 0.7 * moved[1][1:]).all()


def test_sums_of_quadratics_are_what_their_terms_add_up_to() -> None:
    generator = torch.Generator().manual_seed(3)

    def draw(*names: str) -> dict[str, torch.Tensor]:
        return {name: torch.rand(4, dtype=torch.float64, generator=generator) for name in names}

    terms = [(draw("a", "b"), draw("a", "b")), (draw("a"), draw("a")), (draw("a", "c"), draw("a", "c"))]
    terms[1][0]["a"][2] = terms[0][0]["a"][2] = 0.0  # no task so far needs this one
    total = None
    for importances, anchors in terms:
        total = with_term(total, importances, anchors)
    for _ in range(3):
        weights = draw("a", "b", "c", "unknown")
        expected = sum(
            float(f * (weights[name][i] - anchors[name][i]) ** 2)
            for importances, anchors in terms
            for name, values in importances.items()
            for i, f in enumerate(values)
        )
        assert float(total.value(weights)) == pytest.approx(expected, rel=1e-12)
        again = Quadratic.from_named(dict(reversed(total.named().items())))
        assert torch.equal(again.value(weights), total.value(weights))


def test_parts_that_are_not_there_are_free() -> None:
    quadratic = with_term(None, {"a": torch.ones(2)}, {"a": torch.zeros(2)})
    assert float(quadratic.value({"b": torch.ones(3)})) == 0.0
    assert SharedProtection().penalty({"a": torch.ones(2)}) is None
