"""What every method must do: which epoch it keeps, what it leaves alone, which training it refuses."""

from typing import Any

import pytest
import torch
from learner.fixture import GREY, assert_same_tensors, tiny_net, tiny_task
from torch import Tensor

from lasem.errors import ConfigError
from lasem.methods import (
    APD,
    DEN,
    EWC,
    HAT,
    METHODS,
    SI,
    WSN,
    AbstractMethod,
    ChannelGated,
    Joint,
    Learned,
    Model,
    OneNetwork,
    PackNet,
    ProgNN,
)
from lasem.training import AbstractPhase, EpochSummary, PhaseResult, Snapshot, TrainingConfig
from lasem.training.config import OPTIMISERS
from methods.fixture import batch_of, drive, learner_of, naive_accuracy, naive_cross_entropy, noise, result_of, setup_of

NET = tiny_net()
BEST, LAST = 3, 4
every_method = pytest.mark.parametrize(
    "method",
    [
        *(kind() for kind in METHODS.values()),
        OneNetwork(outputs="shared"),
        ProgNN(adapters="each", reduction=2.0, head_adapters="none"),
        APD(period=2, groups=1),
    ],
    ids=str,
)


def training_of(method: AbstractMethod, **changes: Any) -> TrainingConfig:
    return TrainingConfig(**{**method.training, "epochs": LAST, "batch_size": 5, **changes})


def tensors_of(model: Model) -> dict[str, Tensor]:
    parts = {"shared": model.shared, "memory": model.memory, **model.own}
    return {f"{part}:{name}": value for part, named in parts.items() for name, value in named.items()}


def same(first: Model, second: Model) -> bool:
    a, b = tensors_of(first), tensors_of(second)
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def learned_as(method: Any, *seeds: tuple[int, int], earlier: Any = (8, 9), restore_best: bool) -> tuple[Learned, int]:
    """Two tasks learned as if each last phase had come to some weights in its best epoch and others at its end.

    Those of each task are drawn from a pair of ``seeds``, those of the phases before from ``earlier``. It gives the
    second task's outcome, and the epochs of its phases before the last one.
    """
    model = Model()
    for index, of_task in enumerate(seeds):

        def train(phase: AbstractPhase, of_task: tuple[int, int] = of_task) -> PhaseResult:
            ends = of_task if phase.title in ("", "last") else earlier
            best, last = (noise(phase.initial(), seed) for seed in ends)
            seen = EpochSummary("TT")
            return PhaseResult(Snapshot(BEST, 0.75, best, seen), Snapshot(LAST, 0.25, last, seen), LAST, 1.0)

        setup = setup_of(NET, index, training_of(method, restore_best=restore_best))
        learned, phases = drive(method.plan(model, tiny_task(f"t{index}", 2 + index, seed=index), setup), train)
        model = learned.model
    return learned, LAST * (len(phases) - 1)


@every_method
def test_the_best_epoch_is_kept_where_the_settings_restore_it(method: AbstractMethod) -> None:
    learned, before = learned_as(method, (1, 2), (3, 4), restore_best=True)
    assert same(learned.model, learned_as(method, (1, 1), (3, 3), earlier=(8, 8), restore_best=True)[0].model)
    assert not same(learned.model, learned_as(method, (1, 1), (4, 4), restore_best=True)[0].model)
    assert same(learned.best, learned.model)
    assert (learned.best_epoch, learned.valid_accuracy, learned.num_epochs) == (before + BEST, 0.75, before + LAST)


@every_method
def test_otherwise_the_last_one_is_kept_and_the_best_one_is_recorded(method: AbstractMethod) -> None:
    learned, before = learned_as(method, (1, 2), (3, 4), restore_best=False)
    assert same(learned.model, learned_as(method, (2, 2), (4, 4), earlier=(9, 9), restore_best=False)[0].model)
    assert same(learned.best, learned_as(method, (2, 2), (3, 3), earlier=(9, 9), restore_best=False)[0].model)
    assert not same(learned.best, learned.model)
    assert (learned.best_epoch, learned.valid_accuracy, learned.num_epochs) == (before + BEST, 0.75, before + LAST)


@pytest.mark.parametrize(
    "method",
    [
        *(kind() for kind in METHODS.values() if kind is not Joint),  # of all its tasks together
        OneNetwork(outputs="shared"),
        ProgNN(adapters="each", reduction=2.0),
        APD(l1=0.3),  # which prunes
    ],
    ids=str,
)
def test_a_phase_measures_and_trains_what_the_task_answers(method: AbstractMethod) -> None:
    """The second task has fewer classes: outputs that it lacks compete with none."""
    net, model = tiny_net(dropout=0.0), Model()
    for index, num_classes in enumerate((4, 3)):
        task = tiny_task(f"t{index}", num_classes, seed=index)

        def train(phase: AbstractPhase) -> PhaseResult:
            return result_of(phase, noise(phase.initial(), 1))

        setup = setup_of(net, index, training_of(method))
        learned, phases = drive(method.plan(model, task, setup), train)
        model = learned.model
    phase, weights = phases[-1], noise(phases[-1].initial(), 1)

    def answer(x: Tensor) -> Tensor:
        return method.logits(net, model, task.name, x)

    assert phase.accuracy(weights) == pytest.approx(naive_accuracy(answer, task.valid))  # type: ignore[attr-defined]
    if method.name in ("one-network", "prognn", "wsn", "den", "packnet"):  # no penalty in the loss
        batch = batch_of(phase)
        loss = float(phase.loss(weights, batch, torch.Generator()))
        assert loss == pytest.approx(naive_cross_entropy(answer(batch.x), batch.labels), rel=1e-5)


@every_method
def test_a_model_is_only_read_and_what_tasks_own_stays(method: AbstractMethod) -> None:
    learner = learner_of(method, NET, training=training_of(method))
    for k in range(3):
        before = learner.model
        copies = {name: value.clone() for name, value in tensors_of(before).items()}
        learner.learn(tiny_task(f"t{k}", 2 + k % 2, seed=k))
        assert_same_tensors(tensors_of(before), copies)
        assert list(learner.model.own) == [f"t{j}" for j in range(k + 1)]
        for name, own in before.own.items():
            if not method.rewrites:
                assert_same_tensors(dict(learner.model.own[name]), dict(own))


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd", "rmsprop", "rmsprop-tf"])
@pytest.mark.parametrize(
    "method",
    [
        WSN(score_rate=5),
        PackNet(),
        ProgNN(),
        ProgNN(adapters="each", reduction=2.0, head_adapters="none"),
        DEN(split_threshold=0, num_new_units=2, loss_threshold=0),
    ],
    ids=str,
)
def test_methods_that_forget_nothing_answer_the_same_bits(method: AbstractMethod, optimiser: Any) -> None:
    net, images = tiny_net(linear=(5,)), torch.rand(4, *GREY)
    training = TrainingConfig(epochs=3, batch_size=5, learning_rate=0.005, optimiser=optimiser)
    learner = learner_of(method, net, training=training)
    answers: dict[str, Tensor] = {}
    for k in range(3):
        record = learner.learn(tiny_task(f"t{k}", 2 + k, seed=k))
        assert record.configuration == ("SSS" if isinstance(method, ProgNN) else "TTT")
        answers[f"t{k}"] = method.logits(net, learner.model, f"t{k}", images)
        for name, answer in answers.items():
            assert torch.equal(method.logits(net, learner.model, name, images), answer)


@pytest.mark.parametrize(("kind", "middle"), [(EWC, 200.0), (SI, 10.0)])
def test_a_stronger_penalty_moves_important_weights_less(kind: type[EWC | SI], middle: float) -> None:
    training, moved = TrainingConfig(epochs=4, batch_size=5, learning_rate=0.01), []
    for strength in (0.0, middle, 100 * middle):
        learner = learner_of(kind(strength=strength), tiny_net(dropout=0.0), 1, training=training)
        one = learner.model
        learner.learn(tiny_task("t1", 3, seed=1))
        distances = [
            float((one.memory[f"importance.{name}"] * (learner.model.shared[name] - value) ** 2).sum())
            for name, value in one.shared.items()
        ]
        moved.append(sum(distances))
    assert moved[0] > 2 * moved[1] > 4 * moved[2]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (HAT(), {"head"}),
        (ChannelGated(sparsity=0.0), {"head", "gate"}),
        (WSN(capacity=1.0), {"head", "layer", "score"}),  # biases are a task's own
    ],
    ids=["hat", "gated", "wsn"],
)
def test_where_everything_is_used_only_what_is_a_tasks_own_moves(method: AbstractMethod, expected: set[str]) -> None:
    learner, task = learner_of(method, NET, 1, training=training_of(method)), tiny_task("t1", seed=1)
    if not isinstance(method, WSN):
        full = {name: torch.ones_like(used) for name, used in learner.model.memory.items()}
        learner._model = learner.model.having(memory=full)
    before = learner.model
    start = next(method.plan(before, task, setup_of(NET, 1, training_of(method)))).initial()
    learner.learn(task)
    assert_same_tensors(dict(learner.model.shared), dict(before.shared))
    kept = {**learner.model.memory, **learner.model.own["t1"]}
    moved = {name for name, value in kept.items() if name in start and not torch.equal(value, start[name])}
    assert moved >= {name for name in start if name.split(".")[0] in expected and name in kept}
    assert {name.split(".")[0] for name in moved} >= expected


@pytest.mark.parametrize(
    ("method", "training", "message"),
    [
        (APD(), {"weight_decay": 0.1}, r"APD needs .*weight_decay=0; got 0\.1, .*Set APD\.weight_decay"),
        (PackNet(), {"weight_decay": 0.1}, r"PackNet needs .*weight_decay=0; got 0\.1"),
        (WSN(), {"weight_decay": 0.1}, r"WSN needs .*weight_decay=0; got 0\.1"),
        (HAT(), {"optimiser": "sgd", "weight_decay": 0.1}, r"HAT needs .*weight_decay=0; got 0\.1"),
        *((HAT(), {"optimiser": o}, f"HAT needs .*optimiser='sgd'; got '{o}'") for o in OPTIMISERS if o != "sgd"),
    ],
)
def test_training_that_would_move_what_must_stay_is_refused(method: Any, training: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        learner_of(method, NET, training=TrainingConfig(**training))
    learner_of(method, NET, training=None)  # its own settings suit it
