"""What only this learner promises: protected knowledge, equal starts, restored epochs, exact resume."""

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import Mock, patch

import pytest
import torch
from torch import Tensor

from lasem import Learner, Net, Penalty, Task
from lasem.errors import ConfigError, DeviceError, ShapeError, TaskError, TrainingError
from lasem.experiments import PRESETS
from lasem.methods import Transfer
from lasem.nets import part_of
from lasem.records import EpochRecord, TaskRecord, TimingRecord
from lasem.search import DARTS, EM, AbstractSearch, Fixed
from lasem.sharing import AbstractSharing, Deconvolution, HardSharing, TensorFactorization
from lasem.space import full
from lasem.training import TrainingConfig, TrainingState, fisher_information
from lasem.training import loop as loop_module

from .fixture import (
    GREY,
    SHARINGS,
    MovingPrior,
    Scripted,
    assert_same_tensors,
    every_sharing,
    files_in,
    saved,
    tiny_net,
    tiny_task,
)

QUICK = TrainingConfig(epochs=2, batch_size=5, learning_rate=0.01)
FEW = {"epochs": 3, "batch_size": 5, "learning_rate": 0.01, "learning_rate_decay": 0.1}
PAPER = TrainingConfig(**PRESETS["paper"]["training"] | FEW)
PAPER_SEARCH = EM(likelihood="mean", prior_form="average", first_task="search", commit_probability=2, commit_share=1)


def paper_net(depth: int = 3) -> Net:
    return Net(image_shape=GREY, channels=(3,) * depth, kernels=(3,) * depth, pools=(1,) * depth, initial="paper")


@pytest.mark.parametrize(
    ("sharing", "search", "training"),
    [
        *((sharing, EM(), QUICK) for sharing in SHARINGS),
        *((sharing, PAPER_SEARCH, PAPER) for sharing in SHARINGS),
        *zip(SHARINGS, map(Fixed, ("top-2", "bottom-1", "alternating")), [QUICK] * 3, strict=True),
        (SHARINGS[0], MovingPrior(), QUICK),
        (SHARINGS[1], DARTS(alpha_learning_rate=0.1), QUICK),
        (SHARINGS[2], Fixed("none"), QUICK),
    ],
    ids=str,
)
def test_what_earlier_tasks_own_and_what_is_not_transferred_keeps_every_bit(
    sharing: AbstractSharing, search: AbstractSearch, training: TrainingConfig, tmp_path: Path
) -> None:
    learner = Learner(paper_net(), sharing=sharing, search=search, training=training)
    before: dict[str, Tensor] = {}
    for index in range(3):
        record = learner.learn(tiny_task(f"t{index}", num_classes=2 + index % 2, seed=index))
        after = saved(learner, tmp_path / str(index))
        for name, value in before.items():
            room, rest = name.split(":")
            if room != "shared":
                assert torch.equal(after[name], value), name
            else:
                transferred = record.configuration[int(rest.split(".")[1])] == "T"
                assert torch.equal(after[name], value) != transferred, name
        for name in set(after) - set(before):
            if name.startswith("shared:"):
                assert record.configuration[int(name.split(".")[1])] == "T"
        before = after


STILL = TrainingConfig(epochs=1, batch_size=10, learning_rate=1e-30, optimiser="sgd", specific_start="fresh")
"""Steps too small to change a bit: what comes out is what the task started with."""


def starts(
    tmp_path: Path, name: str, search: AbstractSearch, num_before: int, sharing: Any = None
) -> dict[str, Tensor]:
    learner = Learner(paper_net(), search=search, sharing=sharing or HardSharing(), training=STILL)
    for k in range(num_before):
        learner.learn(tiny_task(f"before{k}", num_classes=2 + k, seed=9 + k))
    learner.learn(tiny_task("last"))
    found = saved(learner, tmp_path / name)
    return {key.removeprefix("tasks/last:"): value for key, value in found.items() if key.startswith("tasks/last:")}


def test_methods_start_a_task_from_the_same_values(tmp_path: Path) -> None:
    alone = starts(tmp_path, "none", Fixed("none"), 1)
    for name, search in (("top", Fixed("top-1")), ("alternating", Fixed("alternating")), ("em", EM(first_task="none"))):
        other = starts(tmp_path, name, search, 1)
        assert_same_tensors({key: alone[key] for key in other}, other)
    for sharing in SHARINGS:
        other = starts(tmp_path, f"of-{sharing.name}", Fixed("top-1"), 1, sharing)
        assert all(torch.equal(other[key], alone[key]) for key in alone if not key.startswith("layer.2"))


def test_every_task_has_its_own_start_that_only_its_position_decides(tmp_path: Path) -> None:
    first, second, third = (starts(tmp_path, str(n), Fixed("none"), n) for n in range(3))
    for a, b in ((first, second), (second, third)):
        assert all(not torch.equal(a[key], b[key]) for key in a if "weight" in key)
    assert_same_tensors(second, starts(tmp_path, "again", Fixed("none"), 1))


def start_of_second(sharing: AbstractSharing, first_task: str, **settings: Any) -> dict[str, dict[str, Tensor]]:
    """The second task's shared, factors and specific, before a step, and what the first task owns: ``own``."""
    training = TrainingConfig(epochs=1, learning_rate=1e-30, optimiser="sgd", **settings)
    search = EM(first_task=first_task, likelihood="mean", commit_share=1, commit_probability=2)
    learner = Learner(paper_net(1), sharing=sharing, search=search, training=training)
    learner.learn(tiny_task("a"))
    method = learner.method
    assert isinstance(method, Transfer)
    layer = method.start(learner.model, tiny_task("b"), learner.setup).weights.layers[0]
    own = part_of(learner.model.own["a"], "layer.0")
    return {"shared": layer.shared, "factors": layer.factors, "specific": layer.specific, "own": own}


@every_sharing
@pytest.mark.parametrize("first_task", ["all", "none"])
@pytest.mark.parametrize("start", ["shared", "latest"])
def test_specific_weights_may_start_from_what_is_there(sharing: AbstractSharing, first_task: str, start: str) -> None:
    found = start_of_second(sharing, first_task, specific_start=start)
    taken = sharing.weights(paper_net(1).blocks[0], found["shared"], found["factors"])
    if start == "latest" and first_task == "none":
        taken = found["own"]
    torch.testing.assert_close(found["specific"], taken, rtol=1e-5, atol=1e-7)


def test_factors_may_start_from_the_latest_task_that_has_some(tmp_path: Path) -> None:
    for sharing in (TensorFactorization(factors_start="latest"), Deconvolution(factors_start="latest")):
        learner = Learner(paper_net(2), sharing=sharing, search=Fixed("all"), training=QUICK)
        learner.learn(tiny_task("a"))
        learner.save(tmp_path / sharing.name)
        still = TrainingConfig(epochs=1, learning_rate=1e-30, optimiser="sgd")
        again = Learner.load(tmp_path / sharing.name, training=still)
        again.learn(tiny_task("b", seed=1))
        found = saved(again, tmp_path / f"{sharing.name}-2")
        for key, value in found.items():
            if key.startswith("tasks/b:layer"):
                assert torch.equal(value, found[key.replace("tasks/b", "tasks/a")]), key


def learned(task: Task, seed: int, **settings: Any) -> tuple[Learner, TaskRecord, list[EpochRecord]]:
    constant = {"epochs": 6, "batch_size": 5, "learning_rate": 0.02, "schedule": "constant", "tolerance": 0}
    learner = Learner(tiny_net(), search=Scripted(), training=TrainingConfig(**constant | settings), seed=seed)
    epochs: list[EpochRecord] = []
    return learner, learner.learn(task, on_epoch=lambda record, *_: epochs.append(record)), epochs


def test_the_kept_epoch_is_the_best_or_the_last(tmp_path: Path) -> None:
    num_other = num_other_peaks = 0
    for seed in range(4):
        task = tiny_task("a", num_classes=3, seed=seed)
        (best, of_best, epochs), (last, of_last, _) = learned(task, seed), learned(task, seed, restore_best=False)
        highest = max(epoch.valid_accuracy for epoch in epochs)
        at = next(k for k, epoch in enumerate(epochs) if epoch.valid_accuracy == highest)
        for record in (of_best, of_last):
            assert (record.best_epoch, record.num_epochs, record.valid_accuracy) == (at + 1, 6, highest)
            assert record.peak_accuracy == best.accuracy("a", task.test)  # of the best epoch, whichever is kept
        for learner, record, epoch in ((best, of_best, epochs[at]), (last, of_last, epochs[-1])):
            assert learner.accuracy("a", task.valid) == epoch.valid_accuracy
            assert record.configuration == learner.configuration("a") == epoch.configuration
        until, *_ = learned(task, seed, restore_best=False, epochs=at + 1)
        assert_same_tensors(saved(best, tmp_path / f"{seed}-best"), saved(until, tmp_path / f"{seed}-until"))
        num_other += epochs[-1].configuration != epochs[at].configuration
        num_other_peaks += last.accuracy("a", task.test) != of_last.peak_accuracy
    assert num_other > 0
    assert num_other_peaks > 0


@every_sharing
def test_a_failed_task_leaves_no_trace(sharing: AbstractSharing, tmp_path: Path) -> None:
    learner = Learner(tiny_net(), sharing=sharing, protect=Penalty(), training=QUICK)
    task = tiny_task("b", seed=1)
    learner.learn(tiny_task("a"))
    learner.save(tmp_path / "before")
    images = torch.rand(3, *GREY)
    logits = learner.logits("a", images)
    diverges = {"epochs": 8, "optimiser": "sgd", "learning_rate": 1e6, "weight_decay": 1, "schedule": "constant"}
    for error, wrong, training in (
        (InterruptedError, task, QUICK),
        (TaskError, tiny_task("a"), QUICK),
        (ShapeError, tiny_task("b", shape=(1, 7, 6)), QUICK),
        (TrainingError, task, TrainingConfig(batch_size=5, **diverges)),
        (MemoryError, task, QUICK),
    ):
        learner.training = training
        fails = {"side_effect": error if error is MemoryError else None, "wraps": fisher_information}
        stops = Mock(side_effect=error) if error is InterruptedError else None
        with patch("lasem.methods.transfer.fisher_information", **fails), pytest.raises(error):  # at the very end
            learner.learn(wrong, on_epoch=stops)
        learner.training = QUICK
        assert learner.task_names == ("a",)
        assert torch.equal(learner.logits("a", images), logits)
        learner.save(tmp_path / error.__name__)
        assert files_in(tmp_path / error.__name__) == files_in(tmp_path / "before")
    fresh = Learner.load(tmp_path / "before")
    assert learner.learn(task) == fresh.learn(task)
    assert_same_tensors(saved(learner, tmp_path / "x"), saved(fresh, tmp_path / "y"))


def test_steps_and_epochs_are_counted_as_they_should() -> None:
    learner = Learner(tiny_net(), training=TrainingConfig(epochs=2, batch_size=5, schedule="inverse"))
    steps: list[float] = []

    def watch(_: EpochRecord, __: TimingRecord, state: Callable[[], TrainingState]) -> None:
        steps.append(state().tensors["loop.optimiser.head.bias.1.step"].item())

    with patch.object(loop_module, "learning_rate", wraps=loop_module.learning_rate) as asked:
        for k in range(3):
            learner.learn(tiny_task(f"t{k}"), on_epoch=watch)
    over_all_tasks = [(0, 0), (1, 0), (0, 2), (1, 2), (0, 4), (1, 4)]
    assert [call.args[1:] for call in asked.call_args_list] == over_all_tasks
    assert steps == [2, 4] * 3  # the optimiser starts afresh


def test_the_first_task_is_not_searched_unless_asked() -> None:
    learner = Learner(tiny_net(), training=QUICK)
    first, second = learner.learn(tiny_task("a")), learner.learn(tiny_task("b", seed=1))
    assert (first.configurations, first.configuration, first.commit_epoch) == (("TT",), "TT", None)
    assert (second.configurations, second.commit_epoch) == (tuple(map(str, full(2))), 2)
    searched = Learner(tiny_net(), search=EM(first_task="search"), training=QUICK).learn(tiny_task("a"))
    assert len(searched.configurations) == 4


@pytest.mark.parametrize("search", [Fixed("none"), Fixed("all"), EM()])
def test_it_learns_what_can_be_learned(search: AbstractSearch) -> None:
    training = TrainingConfig(epochs=15, batch_size=8, learning_rate=0.01)
    lowest = []
    for seed in range(3):  # of so small a network, half the units may die
        learner = Learner(tiny_net(dropout=0.1), search=search, training=training, seed=seed)
        records = [learner.learn(tiny_task(f"t{k}", num_classes=2, seed=k, num_train=24)) for k in range(2)]
        again = tiny_task("t1", num_classes=2, seed=1, num_train=24).test
        assert records[1].peak_accuracy == learner.accuracy("t1", again)
        lowest.append(min(record.peak_accuracy for record in records))
    assert median(lowest) >= 0.8


def test_linear_layers_and_groups_in_a_learner(tmp_path: Path) -> None:
    for sharing in SHARINGS:
        net = tiny_net(depth=2, linear=(5,))
        learner = Learner(net, sharing=sharing, search=EM(groups=(2, 1)), training=QUICK)
        learner.learn(tiny_task("a"))
        record = learner.learn(tiny_task("b", seed=1))
        assert record.configurations == ("SSS", "SST", "TTS", "TTT")
        learner.save(tmp_path / sharing.name)
        assert Learner.load(tmp_path / sharing.name).configuration("b") == record.configuration


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"seed": -1}, ConfigError, "A seed must be at least 0; got -1"),
        ({"device": "cuda:99"}, DeviceError, r"Expected a device that is there \(cpu.*\); got 'cuda:99'"),
        *(({"device": name}, DeviceError, f"got '{name}'") for name in ("gpu", "hpu", "meta", "mkldnn", "cuda:-1")),
        ({"device": "mps"}, DeviceError, r"got 'mps'\. Apple's GPUs have no float64"),
        ({"search": Fixed("top-3")}, ConfigError, "'top-3' asks for 3 layers; the network has 2"),
        ({"search": EM(groups=(3,))}, ConfigError, "add up to the network's 2 layers"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("always")
def test_arguments_are_checked_at_the_start(
    given: dict[str, Any], error: type[Exception], message: str, recwarn: pytest.WarningsRecorder
) -> None:
    with pytest.raises(error, match=message):
        Learner(tiny_net(), **given)
    assert not recwarn.list
